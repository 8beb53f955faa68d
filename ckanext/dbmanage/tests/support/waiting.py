"""Waiting for what comes, and ending what was started."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any


def wait_until(true: Callable[[], Any], seconds: float = 300) -> Any:
    """What this gives once it is true; the limit is one that no slow machine reaches."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
    return found


def end_group(process: subprocess.Popen, number: int = signal.SIGKILL) -> None:
    """Ends a command and all its children at once, as a power cut would."""
    os.killpg(process.pid, number)
    process.communicate()
