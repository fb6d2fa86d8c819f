"""The Python blocks of the documentation run, top to bottom, one page one namespace."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [
    page
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/concepts/*.md")]
    if BLOCK.search(page.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_examples_run(page, tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    names = {"__name__": "docs"}
    try:
        for block in BLOCK.finditer(text):
            # Blank lines in front, so that a traceback tells the line of the page.
            line = text.count("\n", 0, block.start(1))
            exec(compile("\n" * line + block.group(1), page.name, "exec"), names)
    finally:
        plt.close("all")
