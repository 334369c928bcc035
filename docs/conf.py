"""The documentation as a site: `make docs` builds it with Sphinx into docs/_build/html.

The pages are the Markdown files beside this one. What the package knows of itself (commands, variants, datasets,
protocols, tables) is written into docs/generated first, so that no page repeats it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from generate import write_reference
from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

import ltpa

project = "ltpa"
author = "the ltpa authors"
version = release = ltpa.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "ltpa"
html_static_path = ["_static"]
html_css_files = ["wide-tables.css"]
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "description"
napoleon_google_docstring = True

write_reference(Path(__file__).parent / "generated")


def setup(app: Sphinx) -> None:
    """Blocks of csv are shown as plain text: there is no lexer of that name."""
    app.add_lexer("csv", TextLexer)
