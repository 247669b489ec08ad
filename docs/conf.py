"""How Sphinx builds this documentation."""

from __future__ import annotations

import sys
from pathlib import Path

import django
from django.conf import settings
from sphinx.application import Sphinx

import trio_channels

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "tools"))

import compatibility  # noqa: E402
import docs_objects  # noqa: E402

# Some modules read settings when they are imported, or import Django's models.
settings.configure(
    SECRET_KEY="only for building the documentation",
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "trio_channels.outbox",
    ],
    USE_TZ=True,
)
django.setup()

# The table of Channels' names is made of the package and its tests.
(DOCS / "reference" / "_compatibility.md").write_text(compatibility.page())

project = "trio-channels"
author = "The trio-channels developers"
copyright = author
release = version = trio_channels.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "snippets", "reference/_compatibility.md"]

html_theme = "furo"
html_title = f"trio-channels {release}"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}
autodoc_type_aliases = {
    "Message": "Message",
    "Scope": "Scope",
    "Receive": "Receive",
    "Send": "Send",
    "ASGIApplication": "ASGIApplication",
}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# Without a network the names in tools/docs_objects.toml are linked alone.
intersphinx_mapping = docs_objects.mapping(DOCS / "_build" / "inventories")
intersphinx_timeout = 10

copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True
copybutton_copy_empty_lines = False


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-signature", docs_objects.plain_signature)
    app.connect("autodoc-process-docstring", docs_objects.with_inherited_attributes, priority=100)  # before napoleon
