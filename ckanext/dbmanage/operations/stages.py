"""What lies ahead of an operation is told, what it took is noted for the next time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from ..engine.course import Took
from ..engine.repository.repository import Repository
from .context import Portal

#: numbers of a journal that anybody may have written
_MOST = 1e15


@contextmanager
def staged(
    portal: Portal, repository: Repository | None, what: str, ahead: Sequence[str]
) -> Iterator[None]:
    """Plans the stages of the block, as the last time of the same tells of them.

    What they took is noted in the journal when the block ends well.
    """
    course = portal.talk.course
    course.plan(ahead, _last(repository, what) if repository else ())
    yield
    portal.talk.finish()
    if repository and course.took and repository.path.is_dir():
        stages = [[t.name, t.seconds, t.counted, t.about] for t in course.took]
        with suppress(OSError):  # a repository may be there to be read only
            repository.record(what, "took", what=what, stages=stages)


def of_backup(parts: Sequence[str]) -> list[str]:
    """The stages of a backup of these parts."""
    dumps = ["dump"] if set(parts) != {"files"} else []
    uploads = ["uploads", "verify files"] if "files" in parts else []
    return [*dumps, *uploads, "verify"]


#: of backups that are forgotten, and of the objects that only they name
OF_PRUNE = ("forget", "objects", "remove")


def _last(repository: Repository, what: str) -> list[Took]:
    """What the stages took the last time, as anybody may have written it."""
    with suppress(OSError):
        for entry in reversed(repository.journal()):
            if (entry.event, entry.text("what")) == ("took", what):
                with suppress(TypeError, ValueError, OverflowError):
                    return [_understood(*each) for each in entry.fields["stages"][:50]]
    return []


def _understood(name: str, seconds: float, counted: int, about: int) -> Took:
    if not all(0 <= number < _MOST for number in (seconds, counted, about)):
        raise ValueError("no numbers")
    return Took(str(name), float(seconds), int(counted), int(about))
