"""The pages, and what stands before Flask: the public dumps and the maintenance."""

from typing import Any

from flask import Blueprint

from ..portal.config import Options
from . import admin, dump_page, guard, sysadmins, things, transfer
from .dump_files import DumpFiles
from .maintenance import MaintenanceMiddleware

#: whose routes stand on the sysadmin's blueprint
PAGES = (admin, things, transfer)


def blueprints() -> list[Blueprint]:
    """What CKAN serves; each page's module has put its routes there."""
    return [dump_page.blueprint(), guard.pages]


def stand_before(app: Any, config: Any) -> Any:
    """Puts the public files, then the maintenance, before CKAN's Flask application."""
    options = Options(config)
    sysadmins.watch(app, options)
    app.wsgi_app = MaintenanceMiddleware(app.wsgi_app, options)
    app.wsgi_app = DumpFiles(app.wsgi_app, options)
    return app
