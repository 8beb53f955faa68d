"""A dataset with all that may belong to one, and what CKAN says of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from . import forked
from .cluster import PG_BIN
from .portal import Portal

ID, NAME = "id-3", "dataset-3"
RESOURCE, ALIAS = "00000000-0000-4000-8000-000000000000", "an alias"
UPLOAD = "00000000-0000-4000-8000-000000000003"

_ACT = """
import json, sys
from ckan.cli import load_config
from ckan.config.middleware import make_app
made = make_app(load_config(sys.argv[1]))
from ckan import logic, model
with made._wsgi_app.test_request_context():
    for name, data in json.loads(sys.argv[2]):
        context = {"ignore_auth": True, "user": sys.argv[3], "use_cache": False}
        try:
            found = logic.get_action(name)(context, data)
        except logic.NotFound:
            found = None
        print("result " + json.dumps(found, default=str))
"""


def act(portal: Portal, *asked: tuple[str, dict[str, Any]]) -> list[Any]:
    """What actions of CKAN give, called one after the other in a process of its own."""
    user = portal.options["ckan.site_id"]
    done = forked.run(
        [sys.executable, "-c", _ACT, str(portal.ini), json.dumps(asked), user],
        env=portal.environment, stdin=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("result ")]
    return [json.loads(line.removeprefix("result ")) for line in lines]


def file_of(portal: Portal) -> Path:
    """The file of the dataset's upload."""
    return portal.storage / "resources" / UPLOAD[:3] / UPLOAD[3:6] / UPLOAD[6:]


def rich(portal: Portal) -> None:
    """Gives a dataset a table, an upload, a view, a collaborator, a group, extras."""
    portal.write(**{"ckan.auth.allow_dataset_collaborators": "true"})
    file_of(portal).parent.mkdir(parents=True)
    (portal.storage / "resources" / "upl" / "oad" / "-3").rename(file_of(portal))
    portal.sql(
        # as CKAN itself makes them
        "UPDATE resource SET hash = '';"
        f"UPDATE resource SET id = '{UPLOAD}' WHERE id = 'upload-3';"
        f"UPDATE resource SET id = '{RESOURCE}',"
        ' extras = \'{"datastore_active": true, "own": "1"}\' WHERE id = \'r-3\';'
        'INSERT INTO resource_view (id, resource_id, title, view_type, "order", config)'
        f" VALUES ('view-2', '{RESOURCE}', 'Second', 'text_view', 1, '{{\"a\": 1}}'),"
        f" ('view-1', '{RESOURCE}', 'First', 'of nobody', 0, NULL);"
        "INSERT INTO package_member (package_id, user_id, capacity, modified)"
        f" VALUES ('{ID}', 'user-2', 'editor', now());"
        "INSERT INTO member (id, group_id, table_id, state, table_name, capacity)"
        f" VALUES ('m-g', 'group-1', '{ID}', 'active', 'package', 'public')"
    )
    portal.sql(
        f'CREATE VIEW public."{ALIAS}" AS SELECT * FROM public."{RESOURCE}";'
        f'ALTER VIEW public."{ALIAS}" OWNER TO ckan_default;'
        f'GRANT SELECT ON public."{ALIAS}" TO datastore_default;'
        f'CREATE INDEX an_index ON public."{RESOURCE}" (_id DESC);'
        f'COMMENT ON COLUMN public."{RESOURCE}"._id IS \'{{"info": 1}}\'',
        "datastore",
    )
    extras = [{"key": "district", "value": "東"}]
    act(portal, ("package_patch", {"id": ID, "extras": extras, "private": True}))


def seen(portal: Portal) -> dict[str, Any]:
    """All that there is of the dataset, but for when it was changed."""
    asked = [
        ("package_show", {"id": ID}),
        ("package_collaborator_list", {"id": ID}),
        ("package_search", {"fq": f"id:{ID}", "include_private": True}),
    ]
    if not portal.sql(f"SELECT 1 FROM package WHERE id = '{ID}'"):
        asked = asked[2:]
    *shown, found = act(portal, *asked)
    for each in (*shown[:1], *found["results"]):
        for key in ("metadata_modified", "organization", "relationships_as_object"):
            each.pop(key, None)
    for each in shown[-1] if len(shown) > 1 else ():
        each.pop("modified")
    state = portal.state()
    return {
        "shown": shown,
        "found": [each["name"] for each in found["results"]],
        "views": portal.sql("SELECT * FROM resource_view ORDER BY id"),
        "creator": portal.sql(
            f"SELECT creator_user_id, metadata_created FROM package WHERE id = '{ID}'"
        ),
        "uploads": state["uploads"],
        "rows": {k: v for k, v in state.items() if k.startswith("datastore:")},
        "schema": subprocess.run(
            [PG_BIN / "pg_dump", "-s", "-n", "public", "-d", portal.url("datastore")],
            capture_output=True, text=True, check=True,
        ).stdout.split("\n-- Name: ")[1:-1],
    }  # fmt: skip


def lines(found: Any) -> list[str]:
    """The same as lines, to be compared."""
    text = json.dumps(found, indent=1, sort_keys=True, default=str)
    return text.splitlines()


def purge(portal: Portal) -> None:
    """What somebody did by mistake: the dataset is gone, with all that it had."""
    portal.sql(f"DELETE FROM package_member WHERE package_id = '{ID}'")
    act(portal, ("dataset_purge", {"id": ID}))
    portal.sql(f'DROP TABLE public."{RESOURCE}" CASCADE', "datastore")
    file_of(portal).unlink()
