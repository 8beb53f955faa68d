"""Where the repository and the public dumps stand, and what a web server hands out."""

from __future__ import annotations

import os
from pathlib import Path

from ..engine.errors import Refused
from .config import PREFIX, Options


def repository_directory(options: Options) -> str:
    """The directory of the backups. Raises Refused when visitors could read it."""
    path = options.repository
    storage = options.storage_path
    if not path:
        if not storage:
            raise Refused(
                "no place for backups: set ckanext.dbmanage.repository (or "
                "ckan.storage_path, then they go to dbmanage/backups below it)"
            )
        path = os.path.join(storage, "dbmanage", "backups")
    real = Path(path).expanduser().resolve()
    if found := serving(options, real):
        option, served = found
        raise Refused(
            f"the repository {path} is inside {served}, which CKAN serves to "
            f"visitors ({option}): set ckanext.dbmanage.repository to another place"
        )
    return str(real)


def public_dir(options: Options) -> Path:
    """The directory of the published dumps. Raises Refused."""
    path = options.public_dir
    storage = options.storage_path
    if not path and not storage:
        raise Refused(
            "no place for the public dumps: set ckanext.dbmanage.public_dir (or "
            "ckan.storage_path, then they go to dbmanage/public below it)"
        )
    path = path or os.path.join(storage, "dbmanage", "public")
    return Path(path).expanduser().resolve()


def has_public_dir(options: Options) -> str:
    return options.public_dir or options.storage_path


def refuse_public(options: Options, file: Path, private: bool) -> None:
    """Raises Refused when an export would be where visitors may read it."""
    found = serving(options, file.parent.resolve())
    if found and (private or found[0] == PREFIX + "public_dir"):
        option, served = found
        raise Refused(
            f"{file} is inside {served}, which is served to visitors ({option}): only "
            "`ckan db publish` writes there; choose another place"
        )


def serving(options: Options, real: Path) -> tuple[str, str] | None:
    """The option and the served directory that a place is in, if it is in any."""
    within = {str(real), *map(str, real.parents)}
    for option, served in _served(options, options.storage_path):
        # strings, for this is asked at each request of the page
        if os.path.realpath(os.path.expanduser(served)) in within:
            return option, served
    return None


def _served(options: Options, storage: str) -> list[tuple[str, str]]:
    """Options and directories whose files CKAN hands to visitors."""
    served = []
    if storage:
        served += [
            ("ckan.storage_path", os.path.join(storage, name))
            for name in ("storage", "resources", "webassets")
        ]
    for option in ("extra_public_paths", "plugin_public_paths", "ckan.webassets.path"):
        value = options.settings.get(option) or []
        folders = value.split(",") if isinstance(value, str) else value
        served += [(option, str(folder).strip()) for folder in folders if folder]
    served += [
        (option, str(value))
        for option, value in options.settings.items()
        if value
        and option.startswith("ckan.files.storage.")
        and option.endswith(".path")
    ]
    if has_public_dir(options):
        served.append((PREFIX + "public_dir", str(public_dir(options))))
    public = options.text("ckan.base_public_folder") or "public"
    served.append((public, str(_package_directory() / public)))
    return served


def _package_directory() -> Path:
    from importlib.util import find_spec

    spec = find_spec("ckan")
    assert spec is not None and spec.submodule_search_locations
    return Path(list(spec.submodule_search_locations)[0])


def sendfile(options: Options, backups: bool = False) -> tuple[str, str]:
    """The header by which a web server in front sends files, and what goes before
    their name in it: of public dumps, or of downloads from the repository.

    Empty what CKAN sends itself. Raises Refused.
    """
    words = options.sendfile
    if not words:
        return "", ""
    header, inside = words[0].lower(), [f"{word.rstrip('/')}/" for word in words[1:]]
    internal = 1 <= len(inside) <= 2 and all(word.startswith("/") for word in inside)
    if header == "x-accel-redirect" and internal:
        if not backups:
            return "X-Accel-Redirect", inside[0]
        return ("X-Accel-Redirect", inside[1]) if len(inside) == 2 else ("", "")
    if header == "x-sendfile" and not inside:
        return (
            "X-Sendfile",
            f"{repository_directory(options) if backups else public_dir(options)}/",
        )
    raise Refused(
        "ckanext.dbmanage.sendfile is neither `X-Sendfile` nor `X-Accel-Redirect "
        "/internal-dumps [/internal-backups]`"
    )
