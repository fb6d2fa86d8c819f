"""Sphinx settings. Builds offline: no inventories of other projects, no fonts from the net."""

import shutil
from pathlib import Path

import ppl_gen

DOCS = Path(__file__).resolve().parent
NOTEBOOKS = DOCS / "notebooks"

# Sphinx reads below its own folder only: the executed notebooks are copied in.
shutil.rmtree(NOTEBOOKS, ignore_errors=True)
NOTEBOOKS.mkdir()
for notebook in sorted((DOCS.parent / "notebooks").glob("[0-9]*.ipynb")):
    shutil.copy(notebook, NOTEBOOKS)

project = "ppl_gen"
author = "The ppl_gen authors"
copyright = author
release = version = ppl_gen.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]

# Notebooks come executed, by `make notebooks`; the docs only show them.
nb_execution_mode = "off"
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_default_options = {"member-order": "bysource"}
templates_path = ["_templates"]
autodoc_typehints = "none"  # the numpydoc sections say more than the annotations
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # a property that the class's docstring lists is not described twice
# Every word of a parameter's type is looked up, and "dict of name to family" finds two `name`s.
suppress_warnings = ["ref.python"]

html_theme = "furo"
html_title = "ppl_gen"
html_copy_source = False


def skip_routing(app, what, name, obj, skip, options):
    """Leave out what scikit-learn writes into every estimator: routing, and kinds of output."""
    routing = name in ("get_metadata_routing", "set_output") or (
        name.startswith("set_") and name.endswith("_request")
    )
    return True if routing else None


def setup(app):
    app.connect("autodoc-skip-member", skip_routing)
