"""The manual as pages to browse, made by bin/docs with the theme of CKAN's own."""

from __future__ import annotations

from pathlib import PurePosixPath

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

logger = logging.getLogger(__name__)

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


#: the links to a place on a page: where they stand, the page, the place
places: list[tuple[str, str, str]] = []


def link(app: Sphinx, doctree: nodes.document) -> None:
    """Makes links to files, as a forge shows them, links to the pages of these.

    A page that is not there is a warning then, and so is a place on a page. The README's
    images are found too.
    """
    for image in doctree.findall(nodes.image):
        image["uri"] = image["uri"].removeprefix("docs/")
    for found in list(doctree.findall(nodes.reference)):
        address, _, place = found.get("refuri", "").partition("#")
        path = PurePosixPath(address)
        if path.suffix != ".rst" or ":" in address:
            continue
        name = path.stem.lower()
        if place:
            places.append((app.env.docname, name, place))
            found["refuri"] = f"{name}.html#{place}"
            continue
        page = addnodes.pending_xref(
            "", nodes.inline(text=found.astext()), refdomain="std", reftype="doc",
            refdoc=app.env.docname, reftarget=f"/{name}",
            refexplicit=True, refwarn=True,
        )  # fmt: skip
        page.source, page.line = found.source, found.line
        found.replace_self(page)


def look(app: Sphinx, env: BuildEnvironment) -> None:
    """Warns of links to a place that its page does not have."""
    for docname, name, place in places:
        there = name in env.found_docs and env.get_doctree(name)
        if not there or place not in there.ids:
            told = f"a link leads to {name}.rst#{place}, which is not there"
            logger.warning(told, location=docname)


def setup(app: Sphinx) -> None:
    # before Sphinx looks for the images, which it does with the usual 500
    app.connect("doctree-read", link, priority=400)
    app.connect("env-check-consistency", look)
