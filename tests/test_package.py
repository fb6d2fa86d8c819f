"""What holds for the package as a whole: lazy imports, the table of names, the wheel."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import ppl_gen

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "ppl_gen"
HEAVY = {"arviz", "jax", "matplotlib", "numpy", "numpyro", "pandas", "pyro", "sklearn", "torch"}


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_import_is_light():
    result = run_python(f"import sys, ppl_gen; print({HEAVY!r} & sys.modules.keys())")
    assert result.stdout.strip() == "set()", result.stderr


@pytest.mark.parametrize("name", ["models", "inference"])
def test_the_root_symlinks_are_no_packages(name):
    assert (ROOT / name).resolve() == PACKAGE / name
    result = run_python(f"import {name}")
    assert result.returncode != 0
    assert f"ImportError: {name}: this folder is a part of ppl_gen" in result.stderr
    assert f"; import ppl_gen.{name} instead" in result.stderr


@pytest.mark.parametrize(("name", "module"), ppl_gen.PUBLIC.items())
def test_every_public_name_is_there(name, module):
    value = getattr(ppl_gen, name)
    assert getattr(sys.modules[module], name) is value
    assert module.startswith("ppl_gen.")


def test_no_module_has_the_name_of_a_public_function():
    modules = {path.stem for path in PACKAGE.glob("*.py")} | {p.name for p in PACKAGE.iterdir()}
    assert not modules & set(ppl_gen.PUBLIC)


def test_unknown_name():
    with pytest.raises(AttributeError, match="has no attribute 'GausianMixture'"):
        ppl_gen.GausianMixture  # noqa: B018
    assert "GaussianMixture" in dir(ppl_gen)


def test_no_file_is_longer_than_500_lines():
    files = [
        p for folder in ("ppl_gen", "tests", "benchmarks") for p in (ROOT / folder).rglob("*.py")
    ]
    long = [str(p) for p in files if len(p.read_text(encoding="utf-8").splitlines()) > 500]
    assert not long


@pytest.mark.slow
def test_the_wheel_ships_the_package_only(tmp_path):
    # From a copy: setuptools keeps a build/ folder in the tree, and ships what is left in it.
    source = tmp_path / "source"
    shutil.copytree(PACKAGE, source / "ppl_gen")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("models", "inference"):
        (source / name).symlink_to(f"ppl_gen/{name}")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, source],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} <= {"ppl_gen", "ppl_gen-0.1.0.dist-info"}
    for name in ("ppl_gen/py.typed", "ppl_gen/datasets/penguins.csv", "ppl_gen/models/mixture.py"):
        assert name in names
