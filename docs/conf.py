"""Sphinx: `pip install -e ".[docs]" && sphinx-build -c docs . docs/_build`, from the repository's root.

The root is the source folder, so that the pages' links to README, examples and code work here as they do in a browser
of the repository.
"""

import re
from typing import Any

import dglrec

project = "dglrec"
version = release = dglrec.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
root_doc = "docs/index"
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
include_patterns = ["README.md", "CHANGELOG.md", "data/README.md", "docs/*.md", "docs/*.rst"]
html_theme = "alabaster"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints = "none"  # the docstrings have shapes
napoleon_use_ivar = True
napoleon_attr_annotations = False  # likewise; and `numpy.str_` would read as a link
nitpicky = True  # a name of dglrec's that is not in the reference is an error
nitpick_ignore_regex = [("py:class", r"(?!dglrec\.).*")]  # shapes, and what other libraries have

# The table of contents; written here, as a directive in docs/index.md would show as code elsewhere.
CONTENTS = """
```{toctree}
:hidden:

../README.md
own_data.md
graph_builders.md
data.md
models.md
gsau.md
mdgr.md
selfgnn.md
hardgnn.md
multi_interest.md
galrec.md
graph_language.md
evaluation.md
protocols.md
examples.rst
api.rst
../data/README.md
../CHANGELOG.md
```
"""


def add_contents(app: Any, page: str, source: list[str]) -> None:
    """Put the table of contents under the index."""
    if page == root_doc:
        source[0] += CONTENTS


def split_names(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """`:ivar a, b: text` -> a field for each name; Sphinx would take all names but the last for a type."""
    several = re.compile(r"^:ivar ([^:\n]*, [^:\n]*):(.*(?:\n +.*)*)", re.MULTILINE)
    text = several.sub(
        lambda field: "\n".join(f":ivar {one}:{field[2]}" for one in field[1].split(", ")), "\n".join(lines)
    )
    lines[:] = text.split("\n")


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", add_contents)
    app.connect("autodoc-process-docstring", split_names, priority=600)  # after napoleon, which writes the fields
