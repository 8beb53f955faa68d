"""The time in UTC, and who is at work."""

from __future__ import annotations

import getpass
import os
import socket
from datetime import datetime, timezone


def now() -> datetime:
    """The time in UTC."""
    return datetime.now(timezone.utc)


def who() -> str:
    """The user of the system, and the host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
