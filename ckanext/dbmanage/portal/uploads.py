"""Where CKAN keeps uploads, and the SQL that names them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from .config import Options


def uploads(options: Options) -> tuple[dict[str, str], tuple[str, ...]]:
    """The directories of the uploads by prefix, and the storages that are no directory.

    The prefix is empty for `ckan.storage_path`, `@NAME` for a file storage of CKAN 2.12
    on local disk beside it. The others, a sentence for each.
    """
    storage = options.text("ckan.storage_path")
    found = {"": str(Path(storage).resolve())} if storage else {}
    elsewhere = []
    for name, (kind, path) in _storages(options).items():
        if not path:
            elsewhere.append(f"the storage {name!r} ({kind}) is on no local disk")
        elif _upload_path(path, found) is None:
            found[f"@{name}"] = path
    return found, tuple(elsewhere)


def upload_bases(options: Options) -> tuple[dict[str, str], dict[str, str]]:
    """Where an upload's path begins: by kind (`resource`, `group` …), and by storage.

    What is on no local disk is left out. As `ckan.lib.files.collect_storages` does it.
    """
    directories, _ = uploads(options)
    storages = _storages(options)
    own = {"resource": "resources"} | {
        kind: f"storage/uploads/{kind}" for kind in ("group", "user", "admin")
    }
    option = "ckan.files.default_storages."
    default = storages.get(options.text(f"{option}default") or "default")
    bases = {}
    for kind, below in own.items():
        named = storages.get(options.text(option + kind) or f"{kind}s")
        root = directories.get("", "")
        if named or default:
            root = named[1] if named else default[1] if default else ""
        base = root and _upload_path(
            root if named else os.path.join(root, below), directories
        )
        if base:
            bases[kind] = base
    found = {n: _upload_path(path, directories) for n, (_, path) in storages.items()}
    return bases, {name: base for name, base in found.items() if base}


def _storages(options: Options) -> dict[str, tuple[str, str]]:
    """CKAN 2.12's file storages: type, and directory where it is on local disk."""
    found = {}
    for option in sorted(options.settings):
        match = re.fullmatch(r"ckan\.files\.storage\.(\w+)\.type", option)
        if match is not None:
            name, kind = match[1], options.text(option)
            path = options.text(f"ckan.files.storage.{name}.path")
            local = path and kind in ("ckan:fs", "ckan:fs:public", "file_keeper:fs")
            found[name] = kind, str(Path(path).resolve()) if local else ""
    return found


def _upload_path(path: str, directories: Mapping[str, str]) -> str | None:
    """A directory as the beginning of an upload's path."""
    for prefix, root in directories.items():
        with suppress(ValueError):
            rest = str(Path(path).relative_to(root))
            return "/".join(filter(None, [prefix, rest if rest != "." else ""]))
    return None


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
    `bases` and `storages` begin the paths, as `upload_bases` gives them.
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


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
