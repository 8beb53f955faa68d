"""Where the repository and the public dumps stand, and what a web server hands out."""

import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ..engine.errors import Refused
from .config import PREFIX, Options


def repository_directory(options: Options) -> str:
    """The directory of the backups. Raises Refused when visitors could read it."""
    path = options.repository or _below_storage(
        options, "backups", "repository", "backups"
    )
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
    path = options.public_dir or _below_storage(
        options, "the public dumps", "public_dir", "public"
    )
    return Path(path).expanduser().resolve()


def _below_storage(options: Options, what: str, option: str, name: str) -> str:
    """Where something of ours stands when its option is not set. Raises Refused."""
    if not options.storage_path:
        raise Refused(
            f"no place for {what}: set {PREFIX}{option} (or ckan.storage_path, then "
            f"they go to dbmanage/{name} below it)"
        )
    return os.path.join(options.storage_path, "dbmanage", name)


def has_public_dir(options: Options) -> bool:
    """Whether the site has a place for public dumps."""
    return bool(options.public_dir or options.storage_path)


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
    for option, served in _served(options):
        # strings: the page asks this at each request
        if os.path.realpath(os.path.expanduser(served)) in within:
            return option, served
    return None


def _served(options: Options) -> list[tuple[str, str]]:
    """Options and directories whose files CKAN hands to visitors."""
    served = []
    if storage := options.storage_path:
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
    served.append((public, str(_ckan() / public)))
    return served


@cache
def _ckan() -> Path:
    """CKAN's own directory."""
    spec = find_spec("ckan")
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def sendfile(options: Options, backups: bool = False) -> tuple[str, str]:
    """The header by which a web server in front sends files, and what goes before
    their name in it: of public dumps, or of downloads from the repository.

    Empty what CKAN sends itself. Raises Refused.
    """
    if not options.sendfile:
        return "", ""
    header, *places = options.sendfile
    header, internal = header.lower(), [f"{place.rstrip('/')}/" for place in places]
    if header == "x-sendfile" and not internal:
        directory = repository_directory(options) if backups else public_dir(options)
        return "X-Sendfile", f"{directory}/"
    if (
        header == "x-accel-redirect"
        and len(internal) in (1, 2)
        and all(place.startswith("/") for place in internal)
    ):
        found = internal[1:] if backups else internal
        return ("X-Accel-Redirect", found[0]) if found else ("", "")
    raise Refused(
        "ckanext.dbmanage.sendfile is neither `X-Sendfile` nor `X-Accel-Redirect "
        "/internal-dumps [/internal-backups]`"
    )
