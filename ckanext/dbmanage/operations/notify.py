"""Who is told: when something is not well, once, and when it is well again.

What was told to whom stands beside the backups, and in Redis for when the disk there is
full or away: a door that failed is told again the next time, one that took it is not.
No door can hold anything up, or fail what has called this.
"""

import hmac
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

from redis import RedisError

from ..engine.clock import stamp
from ..engine.errors import Busy, DbmanageError, Refused, explanation_of
from ..engine.printable import one_line
from ..engine.redis.client import connect, key_of
from ..engine.redis.sealed import seal, unseal
from ..engine.repository.repository import Repository
from ..engine.signature import derived_key
from ..engine.site import Site
from ..engine.words import size
from ..portal import doors
from ..portal.config import PREFIX
from .ages import BACKUP, PROOF, PUBLISH, PUSH, Age
from .context import Portal, find_site, refuse_root
from .messages import ADVICE, Message, Trouble, Writer
from .nights import Night
from .safety import every, needed
from .watched import Watched, is_past, look

_FILE = "told"
#: bytes of what is remembered in Redis: nobody else is to make us read more
_MOST = 1 << 18
#: states in which no backup is seen; what may be well again then all the same
_UNSEEN = frozenset(("away", "empty"))
_SEEN = (*_UNSEEN, "unpublished")
#: of which age a state tells that it is late
_LATE = {"overdue": BACKUP, "stale": PROOF, "uncopied": PUSH, "unpublished": PUBLISH}
_STEP = {
    "push-failed": "push", "proof-failed": "prove", "publish-failed": "publish",
    "prune-failed": "prune",
}  # fmt: skip


@dataclass(frozen=True)
class Door:
    """One way to tell somebody; `key` knows it again, and tells nobody what it is.

    `told` takes a subject and a text; `shut` says what is set up wrong.
    """

    key: str
    name: str
    told: Callable[[str, str], None] = lambda *_: None
    shut: str = ""

    def tell(self, message: Message) -> None:
        """Tells it. Raises Shut where it takes nothing."""
        if self.shut:
            raise doors.Shut(self.shut)
        self.told(message.subject, message.text)


@dataclass(frozen=True)
class Answer:
    """What a door was told, a subject, and why that failed; empty where it did not."""

    door: str
    subject: str
    error: str = ""


# ------------------------------------------------------------------ what is wrong


def troubles(watched: Watched) -> list[Trouble]:
    """What somebody is to be told of, the worst first.

    That nothing was proven yet is none as long as the first proof may still come.
    """
    known, found = watched.known, list[Trouble]()
    for each in every(known):
        state = each.state
        proof = known.ages[PROOF]
        if state not in ADVICE or (state == "unproven" and not proof.overdue):
            continue
        since, last, why, facts = "", "", "", dict[str, str]()
        age: Age | None = known.ages.get(_LATE.get(state, ""))
        if age:
            since, last = age.due or "", age.time or ""
        if state == "failed" and watched.failed:
            since, why = watched.failed["time"], watched.failed["error"]
        elif state == "away":
            why = watched.away
        elif state in _STEP:
            why = known.steps[_STEP[state]]
        elif state == "full" and known.newest:
            facts = {"size": size(needed(known.newest)), "free": size(known.free or 0)}
        found.append(
            Trouble(
                state, each.colour, each.n, each.count, since if is_past(since) else "",
                last, one_line(why)[:500], facts,
            )
        )  # fmt: skip
    return found


# ------------------------------------------------------------------- the telling


def run_notify(
    portal: Portal, failed: Mapping[str, str] = MappingProxyType({})
) -> tuple[list[Trouble], list[Answer]]:
    """Tells each door what has changed since it was told: what is not well, what is.

    `failed` are steps of a night that have failed, each with why, should the journal
    not know of them. Returns what is not well now, and what each door that was told
    has answered. Raises Refused where nobody is to be told, and Busy while somebody
    else tells.
    """
    site, repository = find_site(portal)
    refuse_root(site)
    ways = all_doors(portal, site)
    if not ways:
        raise Refused(
            "nobody is told of anything: name e-mail addresses in "
            f"{PREFIX}notify.email, or a file of Apprise's URLs in "
            f"{PREFIX}notify.apprise_file"
        )
    with _alone(repository):
        before = _remembered(site, repository)
        also = before.get("unnoted", {}) | {n: (stamp(), w) for n, w in failed.items()}
        watched = look(portal.options, site, repository, also)
        return troubles(watched), _tell(portal, site, repository, ways, watched, before)


def _tell(
    portal: Portal,
    site: Site,
    repository: Repository,
    ways: Sequence[Door],
    watched: Watched,
    before: Mapping[str, Any],
) -> list[Answer]:
    """What each door that is told has answered; what it took is remembered."""
    found, writer = troubles(watched), Writer(portal.options)
    first, unnoted = before.get("since", {}), watched.unnoted
    now = {
        each.state: replace(each, since=first.get(each.state) or each.since or stamp())
        for each in found
    }
    blind = not _UNSEEN.isdisjoint(now)
    told: dict[str, Any] = {}
    kept: dict[str, Any] = {}
    asked: list[tuple[Door, Message]] = []
    for door in ways:
        known: Mapping[str, Any] = before.get("doors", {}).get(door.key, {})
        new = [t for t in now.values() if _is_news(t, known.get(t.state))]
        still = [t for t in now.values() if t.state in known and t not in new]
        gone = [state for state in known if state not in now and state in ADVICE]
        # while no backup is seen, nobody knows that they are well again
        over = [each for each in gone if not blind or each in _SEEN]
        kept[door.key] = {each: known[each] for each in gone if each not in over}
        told[door.key] = {t.state: known[t.state] for t in still} | kept[door.key]
        if new or over:
            asked.append((door, writer.news(new, over, still)))
    answers = ask(asked)
    for (door, _), answer in zip(asked, answers, strict=True):
        if answer.error:  # the next time it is told all that it was not told now
            told[door.key] = before.get("doors", {}).get(door.key, {})
        else:
            fresh = {t.state: [t.colour, t.n] for t in now.values()}
            told[door.key] = fresh | kept[door.key]
    unseen = {state for each in kept.values() for state in each}
    since = {state: first[state] for state in unseen if state in first}
    since |= {state: each.since for state, each in now.items()}
    facts: dict[str, Any] = {"since": since, "doors": told, "unnoted": unnoted}
    if any(facts[name] != before.get(name, {}) for name in facts):
        facts["number"] = int(before.get("number", 0)) + 1
        _remember(portal, site, repository, facts)
    if answers:
        _note(repository, list(now), answers)
    return answers


def _is_news(trouble: Trouble, told: Any) -> bool:
    return not told or trouble.is_worse(*told)


def ask(asked: Sequence[tuple[Door, Message]]) -> list[Answer]:
    """Tells doors, all at the same time; what each has answered. It raises nothing."""
    calls = [partial(door.tell, message) for door, message in asked]
    return [
        Answer(door.name, message.subject, error)
        for (door, message), error in zip(asked, doors.bounded(calls), strict=True)
    ]


def try_doors(portal: Portal) -> list[Answer]:
    """Tells each door, and the ping URL, that this is a test. Raises Refused."""
    site, _ = find_site(portal)
    message = Writer(portal.options).test()
    ways = all_doors(portal, site)
    try:
        if url := doors.ping_url(portal.options):
            # a ping without a word would say that a night went well
            body = f"{message.subject}\n{message.text}"
            ways.append(Door("", "ping", lambda *_: doors.ping(url, "log", body)))
    except Refused as error:
        ways.append(Door("ping", "ping", shut=str(error)))
    if not ways:
        raise Refused(
            f"there is no door to try: set {PREFIX}notify.email, "
            f"{PREFIX}notify.apprise_file or {PREFIX}notify.ping_file"
        )
    return ask([(door, message) for door in ways])


def all_doors(portal: Portal, site: Site) -> list[Door]:
    """Who is told; what is set up wrong is a door that is shut."""
    options = portal.options
    found = [
        Door(
            _key(site, address), f"e-mail {one_line(address)}",
            partial(doors.mail, options, portal.app, address),
        )
        for address in (each.strip(",;") for each in options.notify_email)
    ]  # fmt: skip
    try:
        urls = doors.apprise_urls(options)
    except Refused as error:
        return [*found, Door("Apprise", "Apprise", shut=str(error))]
    return found + [
        Door(_key(site, url), name, partial(doors.tell_by_apprise, url))
        for url, name in urls
    ]


def _key(site: Site, address: str) -> str:
    key = derived_key(site.secrets[0], _FILE)
    return hmac.digest(key, address.encode(), "sha256").hex()[:16]


# ------------------------------------------------------------- what was told before


@contextmanager
def _alone(repository: Repository) -> Iterator[None]:
    """So that nobody is told twice; where nothing can be written, without that."""
    with ExitStack() as stack:
        if _is_there(repository):
            try:
                stack.enter_context(repository.telling())
            except Busy:
                raise
            except (DbmanageError, OSError):
                pass
        yield


def _remembered(site: Site, repository: Repository) -> dict[str, Any]:
    found = [repository.recall(_FILE), _of_redis(site)]
    return max(found, key=lambda each: int(each.get("number", 0)))


def _of_redis(site: Site) -> dict[str, Any]:
    key = key_of(site.main.url, _FILE)
    with suppress(RedisError):
        found = connect(site.redis_url).getrange(key, 0, _MOST)
        return unseal(key, found, site.secrets) or {}
    return {}


def _remember(
    portal: Portal, site: Site, repository: Repository, facts: Mapping[str, Any]
) -> None:
    key, kept = key_of(site.main.url, _FILE), False
    with suppress(RedisError):
        connect(site.redis_url).set(key, seal(key, facts, site.secrets))
        kept = True
    if kept and not _is_there(repository):
        return
    try:
        repository.memorize(_FILE, facts)
    except (DbmanageError, OSError) as error:
        if not kept:
            portal.talk.warn(
                "what was told now is told again the next time, for neither "
                f"{repository.path} nor Redis takes a note of it: "
                f"{explanation_of(error)}"
            )


def _is_there(repository: Repository) -> bool:
    """Whether there are backups: else it may be where a disk belongs that is away."""
    try:
        return bool(repository.names())
    except DbmanageError:
        return False


def _note(
    repository: Repository, states: Sequence[str], answers: Sequence[Answer]
) -> None:
    failed = [f"{each.door}: {each.error}" for each in answers if each.error]
    facts: dict[str, Any] = {"states": states, "doors": [e.door for e in answers]}
    if failed:
        facts["error"] = "; ".join(failed)[:1000]
    if _is_there(repository):
        with suppress(OSError):
            event = "failed" if failed else "done"
            repository.record("notify", event, what="notify", **facts)


# ---------------------------------------------------------------------- the night


class Telling:
    """Whom a night tells of its start, its end and its failure. It raises nothing.

    The ping URL is asked for each time; the doors are told what has changed.
    """

    def __init__(self, portal: Portal) -> None:
        self._portal = portal

    def start(self) -> None:
        """The night begins."""
        self._ping("start")

    def end(self, night: Night) -> None:
        """It has ended, well or with a step that failed."""
        lines = [
            f"{each.name}: {each.result}, {each.seconds:.0f} s. {each.message}".strip()
            for each in night.steps
        ]
        self._ping("" if night.well else "fail", "\n".join(map(one_line, lines)))
        options, warn = self._portal.options, self._portal.talk.warn
        if not options.notify_email and not options.notify_apprise_file:
            return
        try:
            failed = {each.name: each.message for each in night.failed}
            _, answers = run_notify(self._portal, failed)
            for each in answers:
                if each.error:
                    warn(f"{each.door} was not told: {each.error}")
        except Exception as error:  # a night is not to fail for it
            warn(f"nobody was told: {_why(error)}")

    def _ping(self, what: str, body: str = "") -> None:
        try:
            if url := doors.ping_url(self._portal.options):
                (error,) = doors.bounded([lambda: doors.ping(url, what, body)])
                if error:
                    self._portal.talk.warn(f"the ping URL was not told: {error}")
        except Exception as error:
            self._portal.talk.warn(f"the ping URL was not told: {_why(error)}")


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, DbmanageError) else type(error).__name__
