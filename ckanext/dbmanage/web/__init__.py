"""Pages: the sysadmin's, and the one of the public dumps."""

from __future__ import annotations

from flask import Blueprint

from . import admin, dump_page, guard, transfer

#: whose routes stand on the sysadmin's blueprint
PAGES = (admin, transfer)


def blueprints() -> list[Blueprint]:
    """What CKAN serves; each page's module has put its routes there."""
    return [dump_page.blueprint(), guard.pages]
