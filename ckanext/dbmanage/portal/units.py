"""What runs the night by itself: a service and a timer of systemd, or lines of cron.

The files in `contrib/` are these, for the paths of CKAN's package. Root writes what
stands here: nothing in it may break out of its line.
"""

import os
import pwd
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from ..engine.errors import Refused
from ..engine.printable import one_line
from .config import Options
from .directories import has_public_dir, public_dir, repository_directory
from .remote import place

#: the name of the units, and the hour of the night: systemd does nothing on a day on
#: which clocks skip the hour, and they skip one before four, wherever they do
NAME = "ckan-dbmanage-night"
HOUR, MINUTE = 4, 30

_SERVICE = """\
# The night of a CKAN portal. For other paths than these: ckan db nightly --install
# See docs/nights.rst.
[Unit]
Description=The night of the CKAN portal: backup, proof, copy, retention, publication
Wants=network-online.target
After=network-online.target postgresql.service redis.service

[Service]
Type=oneshot
User={user}
UMask=0077
# A command before the night: where it fails there is no night. One after it, which
# runs whatever became of it, and finds that in $SERVICE_RESULT. In a file of your own:
# `systemctl edit {name}.service`
#ExecStartPre=/usr/bin/mountpoint -q /var/backups
#ExecStopPost=/usr/bin/logger "the night of the portal: $SERVICE_RESULT"
ExecStart={command}
TimeoutStartSec=infinity
Nice=10
IOSchedulingClass=idle
# It reads what CKAN's user reads, and writes only to these.
ProtectSystem=strict
ReadWritePaths={writes}
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
SystemCallArchitectures=native
SystemCallFilter=@system-service
"""
_TIMER = """\
# The hour is the server's own. Portals of one host begin up to 45 minutes later, each
# always at its own minute; a night that the machine slept through is made up.
[Unit]
Description=The night of the CKAN portal

[Timer]
OnCalendar=*-*-* {hour:02}:{minute:02}
RandomizedDelaySec=45m
FixedRandomDelay=true
Persistent=true

[Install]
WantedBy=timers.target
"""
#: of a crontab of one user; in /etc/cron.d the user stands before the command
_CRON = """\
# the night of {about}; what fails goes to stderr, so to the mail
{minute} {hour} * * *  {command} --quiet >/dev/null
# a night of {about} that the machine slept through is made up
@reboot  sleep 300; {command} --catch-up --quiet >/dev/null
"""


@dataclass(frozen=True)
class Place:
    """Whose nights these are: the user, the program, the file, and what is written."""

    user: str
    python: str
    ini: str
    writes: tuple[str, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """The command, which works when CKAN itself cannot start."""
        return (self.python, "-m", "ckanext.dbmanage", "-c", self.ini, "nightly")

    def service(self, name: str = NAME) -> str:
        """The service of systemd."""
        return _SERVICE.format(
            user=_line(self.user), name=name, writes=" ".join(map(_path, self.writes)),
            command=" ".join(map(_word, (*self.words, "--quiet"))),
        )  # fmt: skip

    def timer(self) -> str:
        """The timer of systemd."""
        return _TIMER.format(hour=HOUR, minute=MINUTE)

    def cron(self) -> str:
        """The lines of the user's own crontab."""
        # a % would be the end of the line there
        command = _line(shlex.join(self.words)).replace("%", r"\%")
        return _CRON.format(
            about=_line(self.ini), hour=HOUR, minute=MINUTE, command=command
        )

    def is_own(self, unit: str) -> bool:
        """Whether a service, or a line of a crontab, is for this configuration file."""
        given = r"-m ckanext\.dbmanage -c {}(?= |$)"
        ini = re.escape(_word(self.ini)), re.escape(shlex.quote(self.ini))
        return any(re.search(given.format(each), unit, re.MULTILINE) for each in ini)


def place_of(options: Options) -> Place:
    """This site, this Python, this configuration file; root lets CKAN's user do it.

    Raises Refused.
    """
    ini = options.text("__file__")
    if not ini:
        raise Refused("CKAN's configuration file is not known: give it by -c")
    repository = repository_directory(options)
    writes = [repository, options.storage_path]
    if has_public_dir(options):
        writes.append(str(public_dir(options)))
    there = place(options)
    address = (
        there.address or there.environment.get("RESTIC_REPOSITORY", "") if there else ""
    )
    if (local := address.removeprefix("local:")).startswith("/"):
        writes.append(local)
    paths = {Path(os.path.realpath(each)) for each in writes if each}
    kept = sorted(p for p in paths if not paths & set(p.parents))
    # systemd begins no night at all where one is missing that has no - before it: a
    # disk that is away is to fail its own step, and nobody may have published yet
    storage = os.path.realpath(options.storage_path)
    writes = (*(f"{'-' * (str(p) != storage)}{p}" for p in kept), "-/var/log/ckan")
    user = _owner(Path(repository), ini)
    return Place(user, sys.executable, os.path.abspath(ini), writes)


def _owner(path: Path, ini: str) -> str:
    """The user to whom a directory belongs, or the one that it would be made in.

    Raises Refused for root where the configuration file is another user's: who may
    write to that would have root run their plugins.
    """
    uid = os.geteuid()
    if uid == 0:
        uid = next(p for p in (path, *path.parents) if p.exists()).stat().st_uid
        if uid == 0 and os.stat(ini).st_uid != 0:
            raise Refused(
                f"{path} is root's, and {ini} is not: the night would run another "
                "user's configuration as root. Give the directory to CKAN's user: "
                "`chown` it, or run this as that user"
            )
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _line(text: str) -> str:
    """A text that stays on its line. Raises Refused."""
    if text != one_line(text):
        raise Refused(
            f"{one_line(text)!r} has letters that no unit or crontab may have"
        )
    return text


def _word(text: str) -> str:
    """A word of a command of systemd's."""
    word = _line(text).replace("\\", "\\\\").replace('"', '\\"')
    word = word.replace("%", "%%").replace("$", "$$")
    return f'"{word}"' if re.search(r"[\s'\"\\;]", word) else word


def _path(text: str) -> str:
    """A path in a list of systemd's."""
    path = _line(text).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{path}"' if re.search(r"[\s'\"\\]", path) else path
