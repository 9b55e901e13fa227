"""Sphinx configuration: MyST pages, an executed gallery, the API from the docstrings."""

import re

import elman

project = "Elman"
author = "The Elman authors"
copyright = "2026, The Elman authors"
version = release = elman.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
]
html_theme = "furo"
html_title = f"Elman {version}"
exclude_patterns = ["_build", "jupyter_execute"]

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
nb_execution_mode = "force"
nb_execution_timeout = 120
nb_execution_raise_on_error = True
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_custom_sections = ["Shapes", "Source"]


def dollars_to_math(app, what, name, obj, options, lines):
    """Docstrings write mathematics between dollars, as the pages do."""
    text = re.sub(r"\$([^$\n]+)\$", r":math:`\1`", "\n".join(lines))
    lines[:] = text.split("\n")


def setup(app):
    app.connect("autodoc-process-docstring", dollars_to_math)
