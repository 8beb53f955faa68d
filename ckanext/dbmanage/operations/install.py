"""The night is made to run by itself, for this site, this user and this Python."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ..engine.disk import write_file
from ..engine.errors import Refused, ToolFailed
from ..engine.printable import one_line
from ..portal.timer import UNITS
from ..portal.units import NAME, Place, place_of
from .context import Portal


@dataclass(frozen=True)
class Plan:
    """What makes the night run: `files` of systemd by their path, or `cron`, lines of
    the user's crontab; and the `commands` that begin with them, each its words."""

    place: Place
    files: dict[str, str]
    cron: str
    commands: tuple[tuple[str, ...], ...]


def plan_install(portal: Portal, units: Path = UNITS) -> Plan:
    """What is to be written: for root a pair of systemd's, else lines of a crontab.

    Raises Refused.
    """
    place = place_of(portal.options)
    if os.geteuid() != 0:
        return Plan(place, {}, place.cron(), ())
    name = _name(place, units)
    files = {
        str(units / f"{name}.service"): place.service(name),
        str(units / f"{name}.timer"): place.timer(),
    }
    begin = ("systemctl", "enable", "--now", f"{name}.timer")
    return Plan(place, files, "", (("systemctl", "daemon-reload"), begin))


def install(plan: Plan) -> bool:
    """Writes what was planned; whether systemd or cron has taken it up by itself.

    Raises Refused, OSError, ToolFailed.
    """
    if plan.cron:
        _run("crontab", "-", text=_crontab(plan.place))
        return True
    for path, text in plan.files.items():
        write_file(Path(path), text.encode())
        os.chmod(path, 0o644)
    # where systemd is not at work, as in a container or an image, it finds them later
    at_work = Path("/run/systemd/system").is_dir()
    for command in plan.commands if at_work else ():
        _run(*command)
    return at_work


def _name(place: Place, units: Path) -> str:
    """The name of this site's units: one of its own where there is another site's."""
    named = Path(place.ini)
    own = one_line(f"{named.parent.name}-{named.stem}").replace("/", "-")
    own = "".join(
        c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in own
    )
    for name in (NAME, f"{NAME}-{own}"):
        service = units / f"{name}.service"
        if not service.exists() or place.is_own(service.read_text("utf-8", "replace")):
            return name
    raise Refused(
        f"{units / f'{NAME}-{own}.service'} is another site's: move it away, or copy "
        "the units out of contrib/ by hand"
    )


def _crontab(place: Place) -> str:
    """The user's crontab with the lines of this site in place of those before."""
    if not shutil.which("crontab"):
        raise Refused(
            "there is no `crontab` here: install cron, or run this as root for a timer "
            "of systemd"
        )
    try:
        lines = _run("crontab", "-l").splitlines()
    except ToolFailed as error:
        if "no crontab" not in str(error):  # there may be one that must not be lost
            raise
        lines = []
    new = place.cron()
    kept = [e for e in lines if e not in new.splitlines() and not place.is_own(e)]
    return "\n".join([*kept, new])


def _run(*command: str, text: str = "") -> str:
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, errors="replace",
        env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    if done.returncode:
        said = one_line(done.stderr.strip())[-300:]
        raise ToolFailed(f"{' '.join(command)} failed: {said}")
    return done.stdout
