"""Execute each notebook script into the notebook beside it: ``make notebooks``.

The scripts (``NN_name.py``, jupytext's percent format) are what is written and reviewed; the
notebooks are what people open. What would differ from run to run, such as times and cell ids, is
left out, so that a notebook changes only where its story does.
"""

import base64
import io
import re
import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).resolve().parent
LIMIT = 500_000  # bytes
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def scripts() -> list[Path]:
    """The notebook scripts, in the order of their numbers."""
    return sorted(FOLDER.glob("[0-9]*.py"))


def execute(script: Path) -> Path:
    """Run one script in a fresh kernel and write the notebook beside it."""
    notebook = jupytext.read(script, fmt="py:percent")
    notebook.metadata = nbformat.from_dict(METADATA)
    NotebookClient(
        notebook,
        timeout=None,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(FOLDER)}},
    ).execute()
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        cell.metadata = nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_progress(output)]
            for output in cell.outputs:
                _drop_addresses(output)
                _index_colours(output)
    text = nbformat.writes(notebook)
    if len(text.encode()) > LIMIT:
        raise ValueError(
            f"{script.name}: the notebook has {len(text.encode()):,} bytes; expected at most "
            f"{LIMIT:,}; draw fewer or smaller pictures"
        )
    target = script.with_suffix(".ipynb")
    target.write_text(text + "\n", encoding="utf-8")
    return target


def _is_progress(output: nbformat.NotebookNode) -> bool:
    """Whether an output is a progress bar, or tqdm's word on how to have a prettier one."""
    if output.output_type != "stream" or output.name != "stderr":
        return False
    return any(mark in output.text for mark in ("\r", "%|", "TqdmWarning"))


def _drop_addresses(output: nbformat.NotebookNode) -> None:
    """Take the addresses in memory out of representations such as ``<Line2D at 0x7f...>``."""
    data = output.get("data", {})
    if "text/plain" in data:
        data["text/plain"] = re.sub(r" at 0x[0-9a-f]+", "", data["text/plain"])


def _index_colours(output: nbformat.NotebookNode) -> None:
    """Store pictures with a palette: charts have few colours, and are a third of the size so."""
    data = output.get("data", {})
    if "image/png" in data:
        picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")
        stored = io.BytesIO()
        palette = picture.quantize(128, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        palette.save(stored, "PNG", optimize=True)
        data["image/png"] = base64.b64encode(stored.getvalue()).decode()


if __name__ == "__main__":
    chosen = [Path(name).resolve() for name in sys.argv[1:]] or scripts()
    for path in chosen:
        print(f"{path.name} -> {execute(path).name}", flush=True)
