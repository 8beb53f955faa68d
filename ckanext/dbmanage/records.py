"""Datasets, organizations, groups and users: what these kinds are in CKAN's tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from .engine.errors import words
from .engine.restore.preview import Kind

#: for the preview of a restore; `is_organization` is a boolean here, its text there
KINDS = (
    Kind("datasets", "package", "state = 'active'", changed="metadata_modified"),
    Kind("resources", "resource", "state = 'active'", changed="metadata_modified"),
    Kind(
        "organizations",
        "group",
        "state = 'active' AND left(is_organization::text, 1) = 't'",
    ),
    Kind(
        "groups", "group", "state = 'active' AND left(is_organization::text, 1) = 'f'"
    ),
    Kind("users", "user", "state = 'active'"),
)


#: what `munge_filename` and its predecessor leave of a name, and the ids of resources
#: that `resource_id_validator` lets pass; SQL, `$` is the end and not a line's
_NAME = "^[A-Za-z0-9._-]{1,140}$"
_ID = "^[0-9A-Za-z _-]{7,100}$"


def named_uploads(
    bases: Mapping[str, str], storages: Mapping[str, str]
) -> dict[str, str]:
    """SQL by table for the paths of the uploads that the database names: path, own.

    `own` says whether CKAN itself could have written that name. Users set others, to
    break a check or to forge its lines: those count only where there is such a file.
    `bases` and `storages` begin the paths, as `config.upload_bases` gives them.
    """
    found = {}
    if "resource" in bases:
        found["resource"] = (
            f"SELECT {_literal(bases['resource'] + '/')}"  # noqa: S608
            " || substr(id, 1, 3) || '/'"
            " || substr(id, 4, 3) || '/' || substr(id, 7) AS path,"
            f" id ~ '{_ID}' AS own FROM public.resource"
            " WHERE url_type = 'upload' AND state = 'active'"
        )
    for kind, table, column, where in (
        ("group", "group", "image_url", "state = 'active'"),
        ("user", "user", "image_url", "state = 'active'"),
        ("admin", "system_info", "value", "key = 'ckan.site_logo'"),
    ):
        if kind in bases:
            found[table] = (
                f"SELECT {_literal(bases[kind] + '/')} || {column} AS path,"  # noqa: S608
                f" {column} ~ '{_NAME}' AND {column} !~ '^[.]+$' AS own"
                f' FROM public."{table}"'
                f" WHERE {where} AND {column} <> '' AND {column} !~* '^([a-z]+:)?/'"
            )
    if storages:
        cases = " ".join(
            f"WHEN {_literal(name)} THEN {_literal(base + '/')}"
            for name, base in storages.items()
        )
        found["file"] = (
            "SELECT path, location !~ '[[:cntrl:]]|//|^/|/$|(^|/)[.]{1,2}(/|$)'"  # noqa: S608
            f" AS own FROM (SELECT CASE storage {cases} END || location AS path,"
            " location FROM public.file) f WHERE path IS NOT NULL"
        )
    return found


#: how many of each kind a proof reads
SAMPLE = 50


def print_sample() -> None:
    """Reads random datasets, organizations and users through CKAN; prints JSON.

    `{"read": {kind: count}, "problems": [sentence]}`. For a process of its own, with
    `-c` and a configuration file as its arguments.
    """
    from ckan import model
    from ckan.cli import load_config
    from ckan.config.middleware import make_app
    from ckan.logic import get_action
    from sqlalchemy import func

    made: Any = make_app(load_config(sys.argv[2]))
    package, group, user = model.Package, model.Group, model.User
    kinds = {
        "datasets": ("package_show", package.id, package.state == "active"),
        "organizations": (
            "organization_show",
            group.id,
            (group.state == "active") & group.is_organization,
        ),
        "users": ("user_show", user.id, user.state == "active"),
    }
    read, problems = {}, []
    with made._wsgi_app.test_request_context():
        for kind, (action, column, where) in kinds.items():
            chosen = model.Session.query(column).filter(where)
            ids = [row[0] for row in chosen.order_by(func.random()).limit(SAMPLE)]
            for id in ids:
                context: Any = {"ignore_auth": True, "use_cache": False}
                # what needs the search index is left out: there is none
                data = {"id": id}
                data |= {"include_dataset_count": False, "include_groups": False}
                try:
                    get_action(action)(context, data)
                except Exception as error:
                    model.Session.rollback()
                    problems.append(f"CKAN cannot read {kind} {id}: {_brief(error)}")
            read[kind] = len(ids)
    print(json.dumps({"read": read, "problems": problems}))  # noqa: T201


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {words(error)}"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
