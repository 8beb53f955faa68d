"""Where CKAN keeps uploads, and the SQL that names them."""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from .config import Options

#: what the options of a file storage of CKAN 2.12 begin with
_STORAGE = "ckan.files.storage."


class Uploads(NamedTuple):
    """Where a site keeps uploads.

    `directories` by the prefix of their files' paths: empty for `ckan.storage_path`,
    `@NAME` for a file storage of CKAN 2.12 on local disk beside it. `elsewhere` the
    storages that are on no local disk, a sentence for each. `named` SQL by table for
    the paths of the uploads that the database names.
    """

    directories: dict[str, str]
    elsewhere: tuple[str, ...]
    named: dict[str, str]


def uploads(options: Options) -> Uploads:
    """Where CKAN keeps uploads, by its options."""
    storages, elsewhere = _storages(options), []
    for name, (kind, path) in storages.items():
        if not path:
            elsewhere.append(f"the storage {name!r} ({kind}) is on no local disk")
    directories = _directories(options, storages)
    begun = _bases(options, storages, directories)
    found = {n: _upload_path(path, directories) for n, (_, path) in storages.items()}
    local = {name: base for name, base in found.items() if base}
    return Uploads(directories, tuple(elsewhere), _named(begun, local))


def bases(options: Options) -> dict[str, str]:
    """Where an upload's path begins, by kind (`resource`, `group`, `user`, `admin`).

    What is on no local disk is left out.
    """
    storages = _storages(options)
    return _bases(options, storages, _directories(options, storages))


def _directories(
    options: Options, storages: Mapping[str, tuple[str, str]]
) -> dict[str, str]:
    root = options.storage_path
    directories = {"": str(Path(root).resolve())} if root else {}
    for name, (_, path) in storages.items():
        if path and _upload_path(path, directories) is None:
            directories[f"@{name}"] = path
    return directories


def _bases(
    options: Options,
    storages: Mapping[str, tuple[str, str]],
    directories: Mapping[str, str],
) -> dict[str, str]:
    """As `bases`; as `ckan.lib.files.collect_storages` does it."""
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
    return bases


def _storages(options: Options) -> dict[str, tuple[str, str]]:
    """CKAN 2.12's file storages: type, and directory where it is on local disk."""
    found = {}
    own = (name for name in options.settings if name.startswith(_STORAGE))
    for option in sorted(own):
        match = re.fullmatch(r"(\w+)\.type", option.removeprefix(_STORAGE))
        if match is not None:
            name, kind = match[1], options.text(option)
            path = options.text(f"{_STORAGE}{name}.path")
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


def _named(bases: Mapping[str, str], storages: Mapping[str, str]) -> dict[str, str]:
    """SQL by table for the paths of the uploads that the database names: path, own.

    `own` says whether CKAN itself could have written that name. Users set others, to
    break a check or to forge its lines: those count only where there is such a file.
    Both mappings say how the paths begin, by kind and by storage.
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
