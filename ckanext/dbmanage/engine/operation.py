"""One operation on a site: what all its steps work with."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from typing import Any

from .report import Listener, Silent, Standing
from .repository.repository import Repository
from .site import Site


@dataclass(frozen=True)
class Operation:
    """A backup, a restore, an undo or a proof while it is at work.

    `id` is its name in the journal. Whoever changes something holds the repository's
    lock.
    """

    site: Site
    repository: Repository
    listener: Listener = field(default_factory=Silent)
    id: str = field(default_factory=lambda: secrets.token_hex(4))

    def called(self, id: str) -> Operation:
        """The same under another name in the journal."""
        return replace(self, id=id)

    def anew(self) -> Operation:
        """The same under a name that no operation had before."""
        return self.called(secrets.token_hex(4))

    def record(self, event: str, **facts: Any) -> None:
        """Adds a line of this operation to the journal. Raises OSError."""
        self.repository.record(self.id, event, **facts)

    @property
    def standing(self) -> Standing:
        """What is true of the live site, should the operation be ended now."""
        return self.listener.standing

    def warn(self, sentence: str) -> None:
        """Tells what the operator should read."""
        self.listener.warn(sentence)

    def progress(self, phase: str, done: int = 0, total: int = 0) -> None:
        """Tells how far a phase is, in bytes; `total` is 0 when nobody knows it."""
        self.listener.progress(phase, done, total)
