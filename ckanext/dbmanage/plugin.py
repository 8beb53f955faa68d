"""The plugin: where CKAN meets the extension, and nothing else."""

from __future__ import annotations

from typing import Any

import ckan.plugins as p
import ckantoolkit as tk

from . import cli, downloads, middleware, pool


@tk.blanket.config_declarations  # type: ignore[attr-defined]
class DbmanagePlugin(p.SingletonPlugin):
    """Adds its commands to core's `ckan db`, and maintenance to the site."""

    p.implements(p.IConfigurer)
    p.implements(p.IClick)
    p.implements(p.IMiddleware, inherit=True)

    # IConfigurer

    def update_config(self, config_: Any) -> None:
        pool.listen()

    # IClick

    def get_commands(self) -> list[Any]:
        # core would take a returned group for another command of the same name
        cli.extend_core()
        return []

    # IMiddleware

    def make_middleware(self, app: Any, config: Any) -> Any:
        # core wants the Flask application itself back
        inner = middleware.MaintenanceMiddleware(app.wsgi_app, config)
        app.wsgi_app = downloads.DownloadsMiddleware(inner, config)
        return app
