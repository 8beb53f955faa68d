"""The manual as pages to browse, made by bin/docs with the theme of CKAN's own."""

from __future__ import annotations

from pathlib import PurePosixPath

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

project = "ckanext-dbmanage"
html_title = project
html_theme = "sphinx_rtd_theme"
html_show_copyright = False
templates_path = []
exclude_patterns = ["requirements.txt"]
nitpicky = True
# quotes and dots are made nice; the two dashes of an option stay
smartquotes_action = "qe"
# shell lines are no Python
highlight_language = "none"


def link(app: Sphinx, doctree: nodes.document) -> None:
    """Makes links to files, as a forge shows them, links to the pages of these.

    A page that is not there is a warning then. The README's images are found too.
    """
    for image in doctree.findall(nodes.image):
        image["uri"] = image["uri"].removeprefix("docs/")
    for found in list(doctree.findall(nodes.reference)):
        path = PurePosixPath(found.get("refuri", ""))
        if path.suffix != ".rst" or ":" in found["refuri"]:
            continue
        page = addnodes.pending_xref(
            "", nodes.inline(text=found.astext()), refdomain="std", reftype="doc",
            refdoc=app.env.docname, reftarget=f"/{path.stem.lower()}",
            refexplicit=True, refwarn=True,
        )  # fmt: skip
        page.source, page.line = found.source, found.line
        found.replace_self(page)


def setup(app: Sphinx) -> None:
    # before Sphinx looks for the images, which it does with the usual 500
    app.connect("doctree-read", link, priority=400)
