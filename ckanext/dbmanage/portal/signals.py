"""CKAN's signals, for plugins that want to do something of their own.

    dbmanage:backup     sender: the id; parts, bytes
    dbmanage:restored   sender: where it came from; what (restore, undo), parts
    dbmanage:failed     sender: what failed (backup, restore, …); error

They are in `ckan.plugins.toolkit.signals.ckanext`. Where CKAN was not started there is
no plugin to hear them. A receiver that raises harms nothing: others hear it still.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..engine.errors import Busy, DbmanageError, explanation_of

_log = logging.getLogger(__name__)

BACKUP, RESTORED, FAILED = "dbmanage:backup", "dbmanage:restored", "dbmanage:failed"


def send(name: str, sender: str, **facts: Any) -> None:
    """Sends a signal to who listens. It raises nothing."""
    signals = sys.modules.get("ckan.lib.signals")
    if signals is None:
        return
    signal = signals.ckanext.signal(name)
    for receiver in list(signal.receivers_for(sender)):
        try:
            receiver(sender, **facts)
        except Exception:
            _log.exception("a receiver of %s failed", name)


@contextmanager
def failures(what: str) -> Iterator[None]:
    """Sends `failed` when the block does; not because somebody else is at work."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, Busy):
            known = isinstance(error, (DbmanageError, OSError))
            why = explanation_of(error) if known else type(error).__name__
            send(FAILED, what, error=why)
        raise
