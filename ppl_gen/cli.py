"""The command line: fit a model to a table or a text, and list the models.

::

    ppl-gen models
    ppl-gen fit gaussian-mixture faithful --method nuts --param n_components=2 --out runs/faithful
    ppl-gen fit naive-bayes birds.csv --target species --out runs/birds
    ppl-gen fit markov-chain verses.txt --param order=3 --out runs/verses
"""

import ast
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import ppl_gen

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Generative models as probabilistic programs.",
)

#: A public name is a model if its class lives on this floor.
MODELS = "ppl_gen.models."
SUMMARY = "summary.csv"


@app.command()
def models() -> None:
    """List every model: its family, the kind of its density, and the methods that fit it."""
    from rich.table import Table

    table = Table("model", "family", "density", "methods (default first)")
    for name, kind in _models().items():
        family = ppl_gen.PUBLIC[name].removeprefix(MODELS).partition(".")[0]
        # A density that depends on settings is told for the default ones.
        density = kind.density if isinstance(kind.density, str) else kind().density
        table.add_row(name, family.replace("_", " "), density, ", ".join(kind.methods))
    _print(table)


@app.command()
def fit(
    model: Annotated[str, typer.Argument(help="A model, such as gaussian-mixture: `models`.")],
    data: Annotated[
        str, typer.Argument(help="A CSV file, a text, or an embedded data set's name.")
    ],
    out: Annotated[Path, typer.Option(help="The directory to write: the model, summary.csv.")],
    method: Annotated[
        str | None, typer.Option(help="Such as em, svi, nuts: `models`; else the default.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="The column to predict; left out of the density.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="The columns to fit, with commas between; else all.")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(help="name=value, such as n_components=3 or inference__draws=500."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same fit.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace what is at --out.")] = False,
) -> None:
    """Fit a model, write it with its posterior and summary, and print the summary."""
    with _one_line_errors():
        estimator = _estimator(model, method, param or [], seed)
        _check_out(out, overwrite)
        texts = _texts(data, target, columns, estimator)
        X, y = _table(data, target, columns, estimator) if texts is None else (texts, None)
        estimator.fit(X) if y is None else estimator.fit(X, y)
        posterior = estimator.posterior_
        # Of a network's weights there is no summary to read: its training is told instead.
        history: Any = getattr(estimator, "history_", None)
        summary = history if hasattr(history, "columns") else posterior.summary()
        # summary.csv is no part of the artefact, and would keep it from being replaced.
        (out / SUMMARY).unlink(missing_ok=True)
        estimator.save(out, overwrite=overwrite)
        summary.to_csv(out / SUMMARY)
    _print(_rich(summary, f"{type(estimator).__name__} by {posterior.method}"))
    if posterior.verdict is not None:
        _print(str(posterior.verdict))
    _print(f"written: {out}")


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Say what the library refuses, or warns of, in one line each; exit with code 2 on an error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        try:
            yield
        except (ValueError, TypeError, OSError, NotImplementedError, FloatingPointError) as error:
            typer.echo(f"ppl-gen: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(2) from None
        finally:
            for message in dict.fromkeys(" ".join(str(w.message).split()) for w in caught):
                typer.echo(f"ppl-gen: warning: {message}", err=True)


def _models() -> dict[str, Any]:
    """Return the models by their names; what else their modules have public is no model."""
    found = {
        name: getattr(ppl_gen, name)
        for name, module in ppl_gen.PUBLIC.items()
        if module.startswith(MODELS)
    }
    return {name: kind for name, kind in found.items() if hasattr(kind, "density")}


def _plain(name: str) -> str:
    """Drop what people spell in different ways: case, hyphens and underscores."""
    return name.lower().replace("-", "").replace("_", "")


def _estimator(model: str, method: str | None, settings: list[str], seed: int) -> Any:
    known = _models()
    kind = {_plain(name): kind for name, kind in known.items()}.get(_plain(model))
    if kind is None:
        raise ValueError(f"fit: unknown model {model!r}; expected one of {', '.join(known)}")
    if method is not None and method not in kind.methods:
        raise ValueError(
            f"fit: {kind.__name__} cannot be fitted by {method!r}; "
            f"expected one of {', '.join(kind.methods)}"
        )
    from ppl_gen.inference.base import resolve

    # What the model does by itself may be more than its method with defaults.
    asked = method is not None or any(setting.startswith("inference__") for setting in settings)
    inference = resolve(method or kind.methods[0]) if asked else None
    estimator = kind(inference=inference, random_state=seed)
    return estimator.set_params(**dict(map(_setting, settings)))


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError(f"fit: --param {text!r} has no value; expected name=value")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value  # a word, such as full or diag


def _check_out(out: Path, overwrite: bool) -> None:
    """Refuse before the fit what `save` would refuse after it."""
    if out.exists() and not overwrite:
        raise FileExistsError(f"fit: {out} exists; pass --overwrite to replace it, or another path")


def _texts(data: str, target: str | None, columns: str | None, estimator: Any) -> list[str] | None:
    """Return texts for a model of tokens: the lines of a .txt file, or the column of a data set."""
    from ppl_gen.datasets import LOADERS
    from ppl_gen.token_reader import TokenReader

    if not isinstance(estimator, TokenReader):
        return None
    if data not in LOADERS:
        path = Path(data)
        if path.suffix.lower() != ".txt" or not path.is_file():
            return None
        if target or columns:
            raise ValueError(
                f"fit: {data} is a text, which has no columns; leave --columns and --target out"
            )
        return [line for line in path.read_text(encoding="utf-8-sig").split("\n") if line]
    frame, _ = _read(data)
    # States are categories; a column of strings has texts.
    texts = frame.select_dtypes(include=["object", "string"]).columns
    asked = [column for column in texts if columns in (None, column)]
    return frame[asked[0]].tolist() if len(asked) == 1 and target is None else None


def _table(
    data: str, target: str | None, columns: str | None, estimator: Any
) -> tuple["pd.DataFrame", "pd.Series[Any] | None"]:
    """Read the rows; split off the target, which only a classifier sees."""
    from sklearn.base import is_classifier

    frame, own_target = _read(data)
    # To a network, what is to be predicted is a node among the others.
    is_network = "graph" in estimator.get_params()
    if is_network and target is not None:
        estimator.set_params(target=target)
    target = target or (None if is_network else own_target)
    names = [name.strip() for name in columns.split(",")] if columns else list(frame.columns)
    missing = [name for name in [*names, target] if name is not None and name not in frame.columns]
    if missing:
        raise ValueError(
            f"fit: {data} has no column {', '.join(map(repr, missing))}; "
            f"it has {', '.join(frame.columns)}"
        )
    if is_network:
        return frame[list(dict.fromkeys([*names, *([target] if target else [])]))], None
    X = frame[[name for name in names if name != target]]
    # A model that has no family to choose for its columns is one over numbers, or takes all kinds.
    mixed = "family" in estimator.get_params() or getattr(estimator, "takes_categories", False)
    if columns is None and not mixed:
        numbers = X.select_dtypes("number")
        left_out = [name for name in X.columns if name not in numbers.columns]
        if left_out:
            warnings.warn(
                f"left out, for they hold no numbers: {', '.join(left_out)}", stacklevel=2
            )
        X = numbers
    if not is_classifier(estimator):
        return X, None
    if target is None:
        raise ValueError(
            f"fit: {type(estimator).__name__} predicts a column; pass --target with one of "
            f"{', '.join(frame.columns)}"
        )
    return X, frame[target]


def _read(data: str) -> tuple["pd.DataFrame", str | None]:
    from ppl_gen.datasets import LOADERS

    if data in LOADERS:
        dataset = LOADERS[data]()
        return dataset.frame, dataset.target
    path = Path(data)
    if not path.is_file():
        raise FileNotFoundError(
            f"fit: there is no file {data}, and no data set of that name; "
            f"expected a CSV file, a text or one of {', '.join(LOADERS)}"
        )
    import pandas as pd

    frame = pd.read_csv(path)
    words = frame.select_dtypes(include=["object", "string"]).columns
    return frame.astype(dict.fromkeys(words, "category")), None


def _rich(frame: "pd.DataFrame", title: str) -> Any:
    from rich.table import Table

    table = Table("", *map(str, frame.columns), title=title)
    for name, row in frame.iterrows():
        table.add_row(str(name), *(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row))
    return table


def _print(thing: object) -> None:
    from rich.console import Console

    # In a pipe there is no terminal to fit into, and a table should not be cut to 80 columns.
    width = None if sys.stdout.isatty() else 160
    Console(width=width, highlight=False).print(thing)


if __name__ == "__main__":
    app()
