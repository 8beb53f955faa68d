"""The plugin: where CKAN meets the extension, and nothing else."""

from typing import Any

import ckan.plugins as p
import ckantoolkit as tk
from ckan.lib.plugins import DefaultTranslation

from . import cli, web
from .logic import action
from .portal import cached_types
from .web import helpers


@tk.blanket.config_declarations  # type: ignore[attr-defined]
@tk.blanket.actions(action.functions)  # type: ignore[attr-defined]
@tk.blanket.auth_functions(action.auth_functions)  # type: ignore[attr-defined]
@tk.blanket.helpers(helpers.functions)  # type: ignore[attr-defined]
@tk.blanket.blueprints(web.blueprints)  # type: ignore[attr-defined]
class DbmanagePlugin(p.SingletonPlugin, DefaultTranslation):
    """Commands in core's `ckan db`, the sysadmin page, maintenance, public dumps."""

    p.implements(p.ITranslation)
    p.implements(p.IConfigurer)
    p.implements(p.IClick)
    p.implements(p.IMiddleware, inherit=True)

    def update_config(self, config_: Any) -> None:
        tk.add_template_directory(config_, "templates")  # type: ignore[attr-defined]
        tk.add_resource("assets", "dbmanage")  # type: ignore[attr-defined]
        cached_types.listen()

    def get_commands(self) -> list[Any]:
        return cli.extend_core()

    def make_middleware(self, app: Any, config: Any) -> Any:
        return web.stand_before(app, config)
