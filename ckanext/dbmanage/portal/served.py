"""What CKAN's web server hands out: nothing private may stand there."""

from __future__ import annotations

import os
from pathlib import Path

from ..engine.errors import Refused
from .config import PREFIX, Config, has_public_dir, public_dir, text_of


def refuse_public(config: Config, file: Path, private: bool) -> None:
    """Raises Refused when an export would be where visitors may read it."""
    found = serving(config, file.parent.resolve())
    if found and (private or found[0] == PREFIX + "public_dir"):
        option, served = found
        raise Refused(
            f"{file} is inside {served}, which is served to visitors ({option}): only "
            "`ckan db publish` writes there; choose another place"
        )


def serving(config: Config, real: Path) -> tuple[str, str] | None:
    """The option and the served directory that a place is in, if it is in any."""
    within = {str(real), *map(str, real.parents)}
    for option, served in _served(config, text_of(config, "ckan.storage_path")):
        # strings, for this is asked at each request of the page
        if os.path.realpath(os.path.expanduser(served)) in within:
            return option, served
    return None


def _served(config: Config, storage: str) -> list[tuple[str, str]]:
    """Options and directories whose files CKAN hands to visitors."""
    served = []
    if storage:
        served += [
            ("ckan.storage_path", os.path.join(storage, name))
            for name in ("storage", "resources", "webassets")
        ]
    for option in ("extra_public_paths", "plugin_public_paths", "ckan.webassets.path"):
        value = config.get(option) or []
        folders = value.split(",") if isinstance(value, str) else value
        served += [(option, str(folder).strip()) for folder in folders if folder]
    served += [
        (option, str(value))
        for option, value in config.items()
        if value
        and option.startswith("ckan.files.storage.")
        and option.endswith(".path")
    ]
    if has_public_dir(config):
        served.append((PREFIX + "public_dir", str(public_dir(config))))
    public = text_of(config, "ckan.base_public_folder") or "public"
    served.append((public, str(_package_directory() / public)))
    return served


def _package_directory() -> Path:
    from importlib.util import find_spec

    spec = find_spec("ckan")
    assert spec is not None and spec.submodule_search_locations
    return Path(list(spec.submodule_search_locations)[0])
