"""A table, with where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

Array = Any

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Dataset:
    """A table, and where it comes from.

    Attributes
    ----------
    name : str
        Its short name.
    frame : pandas.DataFrame
        All rows and columns; what is missing is NaN.
    target : str or None
        The column that is usually predicted.
    description : str
        What the rows and columns are, with units.
    source : str
        Who collected it, and where it was published.
    licence : str
        On what terms it may be used.
    image_shape : tuple of int or None
        (H, W) where each row is an image, its pixels in reading order.
    """

    name: str
    frame: pd.DataFrame
    target: str | None
    description: str
    source: str
    licence: str
    image_shape: tuple[int, ...] | None = None

    @property
    def X(self) -> pd.DataFrame:
        """The columns but the target; shape (n, D)."""
        return self.frame if self.target is None else self.frame.drop(columns=self.target)

    @property
    def y(self) -> pd.Series[Any]:
        """The target; shape (n,).

        Raises
        ------
        ValueError
            If the data set has no target.
        """
        if self.target is None:
            raise ValueError(
                f"Dataset.y: {self.name} has no target; choose one of the columns "
                f"{list(self.frame.columns)}"
            )
        return self.frame[self.target]

    @property
    def images(self) -> Array:
        """The rows as images; shape (n, H, W).

        Raises
        ------
        ValueError
            If the rows are no images.
        """
        if self.image_shape is None:
            raise ValueError(
                f"Dataset.images: the rows of {self.name} are no images; those of "
                "load_digits() and load_mnist_5k() are"
            )
        return self.X.to_numpy().reshape(-1, *self.image_shape)

    def __repr__(self) -> str:
        rows, columns = self.frame.shape
        return f"Dataset({self.name!r}, {rows} rows x {columns} columns, target={self.target!r})"


def read_table(name: str, index_col: int | None = None, suffix: str = ".csv") -> pd.DataFrame:
    """Read one of the files of this folder; "NA" is missing, and nothing else is."""
    import pandas as pd

    return pd.read_csv(
        FOLDER / f"{name}{suffix}", index_col=index_col, na_values=["NA"], keep_default_na=False
    )
