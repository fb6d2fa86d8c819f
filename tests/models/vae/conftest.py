"""Rows that autoencoders are tried on."""

import pytest
from sklearn.datasets import load_digits, load_iris


@pytest.fixture(scope="session")
def iris():
    return load_iris().data


@pytest.fixture(scope="session")
def digits():
    return load_digits().images[:300]
