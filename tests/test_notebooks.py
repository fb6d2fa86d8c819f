"""The notebooks run, and each is the executed twin of its script."""

import runpy
from pathlib import Path

import jupytext
import nbformat
import pytest

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
SCRIPTS = sorted(FOLDER.glob("[0-9]*.py"))


def cells(notebook):
    return [(cell.cell_type, cell.source.strip()) for cell in notebook.cells]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_notebook_is_in_step_with_its_script(script):
    file = script.with_suffix(".ipynb")
    assert file.exists(), "run `make notebooks`"
    notebook = nbformat.read(file, as_version=4)
    assert cells(notebook) == cells(jupytext.read(script, fmt="py:percent")), "run `make notebooks`"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert file.stat().st_size < 500_000
    # Nothing that changes with every run.
    assert all(not cell.metadata for cell in notebook.cells)
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)


# ArviZ's own use of pandas, in az.compare, which pandas 3.1 deprecates.
@pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.sort_values")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_script_runs_with_few_draws(script, monkeypatch, tmp_path):
    import matplotlib.pyplot as plt

    monkeypatch.setenv("PPL_GEN_SMALL", "1")
    monkeypatch.chdir(tmp_path)
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        plt.close("all")


def test_every_notebook_has_a_script():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} <= {path.stem for path in SCRIPTS}
