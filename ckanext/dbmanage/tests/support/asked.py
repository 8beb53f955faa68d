"""Commands that ask, at a terminal: what is typed before, and what as the answer."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

from . import forked
from .portal import Portal
from .waiting import wait_until


def answered(
    portal: Portal,
    command: Sequence[str],
    answer: str,
    *,
    early: str = "",
    first: Callable[[], Any] = lambda: None,
) -> tuple[int, str]:
    """The exit code of a command that is answered, and all that it said.

    `early` is typed before it asks; `first` is done while its question waits.
    """
    ours, theirs = pty.openpty()
    try:
        os.write(ours, early.encode())
        with forked.start(
            list(command), stdin=theirs, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env=portal.environment,
        ) as process:  # fmt: skip
            assert process.stdout
            said = b""

            def asks() -> bool:
                nonlocal said
                more = os.read(process.stdout.fileno(), 1 << 16)  # type: ignore[union-attr]
                said += more
                return not more or said.endswith((b"[y/N]: ", b"to go on: "))

            wait_until(asks)
            first()
            os.write(ours, f"{answer}\n".encode())
            said += process.stdout.read()
            return process.wait(), said.decode()
    finally:
        os.close(ours)
        os.close(theirs)
