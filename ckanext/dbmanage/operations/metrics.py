"""What Prometheus is told of a site, as the field's exporters name it.

Of `watched.py` alone: no database, no Redis, no network is asked, nothing is unpacked.
No series is of a single backup, for a series that comes and goes costs a monitor much.
"""

import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..engine.clock import parse_stamp
from ..engine.printable import one_line
from .context import Portal, find_site
from .safety import AMBER, GOOD, RED, SENTENCES, every, needed
from .watched import Watched, look

_PREFIX = "ckan_dbmanage_"
_STATES = ("proven", "verified", "unverified", "damaged", "foreign", "unreadable")
#: these are of the page's worker, which nobody asks here, or are no check
_UNASKED = ("offline", "running", "ok")
CHECKS = tuple(state for state in SENTENCES if state not in _UNASKED)
_LEVELS = {AMBER: 1, RED: 2}


@dataclass(frozen=True)
class Metric:
    """A gauge: its name without the prefix, what it says, labels beside `site`."""

    name: str
    help: str
    labels: Sequence[str] = ()

    @property
    def whole(self) -> str:
        """The name as Prometheus has it."""
        return _PREFIX + self.name


#: all there are, in the order of the manual
METRICS = {
    each.name: each
    for each in (
        Metric(
            "build_info", "What wrote this; always 1.", ("version", "ckan", "python")
        ),
        Metric("check_state", "0 is well, 1 a warning, 2 critical.", ("check",)),
        Metric(
            "last_success_timestamp_seconds",
            "When the newest backup was taken or proven, the newest one that is at the "
            "other place was taken, and the public dumps were written.",
            ("what",),
        ),
        Metric(
            "age_limit_seconds",
            "How old these may be, by the configuration; 0 is no limit.",
            ("what",),
        ),
        Metric(
            "backup_last_success_timestamp_seconds",
            "When the newest verified backup of a part was taken.",
            ("part",),
        ),
        Metric("backup_size_bytes", "What the newest holds of a part.", ("part",)),
        Metric("backup_added_bytes", "What it added to the repository.", ("part",)),
        Metric("backup_duration_seconds", "How long the newest one took."),
        Metric("backup_needed_bytes", "What the next backup needs at most."),
        Metric("backups", "How many backups there are.", ("place", "state")),
        Metric("repository_free_bytes", "What is free on the repository's disk."),
        Metric("repository_total_bytes", "How large that disk is."),
        Metric("nightly_last_run_timestamp_seconds", "When the last night ended."),
        Metric(
            "nightly_step_success",
            "Whether a step of the last night did not fail (1), or failed (0).",
            ("step",),
        ),
        Metric("nightly_step_duration_seconds", "How long a step took.", ("step",)),
    )
}
#: a metric, its labels' values but for `site`, its value
Sample = tuple[str, tuple[str, ...], float]


def metrics(portal: Portal) -> bytes:
    """What Prometheus reads, as text. Raises Refused."""
    # a tenth of a second of imports, which no other command is to wait for
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    site, repository = find_site(portal)
    watched = look(portal.options, site, repository)
    registry, where = CollectorRegistry(), one_line(portal.options.site_address)
    about = "build_info", _versions(site.versions), 1.0
    gauges: dict[str, Gauge] = {}
    for name, labels, value in (about, *samples(watched)):
        metric = METRICS[name]
        gauge = gauges.get(name) or Gauge(
            metric.whole, metric.help, ("site", *metric.labels), registry=registry
        )
        gauges[name] = gauge
        gauge.labels(where, *labels).set(value)
    return generate_latest(registry)


def _versions(versions: object) -> tuple[str, str, str]:
    known = versions if isinstance(versions, dict) else {}
    own, ckan = known.get("dbmanage"), known.get("ckan")
    return str(own or ""), str(ckan or ""), platform.python_version()


def samples(watched: Watched) -> Iterator[Sample]:
    """What is known, as samples; what is not known has none.

    A time in the future has none either: it would look new for ever.
    """
    known = watched.known
    states = {each.state: each.colour for each in every(known)}
    for check in CHECKS:
        yield "check_state", (check,), _LEVELS.get(states.get(check, ""), 0)
    for what, age in known.ages.items():
        yield "age_limit_seconds", (what,), age.limit.total_seconds()
        if age.time and age.seconds is not None:
            time = parse_stamp(age.time).timestamp()
            yield "last_success_timestamp_seconds", (what,), time
    yield from _of_backups(watched)
    if watched.disk:
        yield "repository_free_bytes", (), watched.disk["free"]
        yield "repository_total_bytes", (), watched.disk["total"]
    if (night := watched.night) and night.ended:
        yield "nightly_last_run_timestamp_seconds", (), night.ended.timestamp()
    for step in night.steps if night else ():
        yield "nightly_step_success", (step.name,), step.result != "failed"
        yield "nightly_step_duration_seconds", (step.name,), step.seconds


def _of_backups(watched: Watched) -> Iterator[Sample]:
    known, dated = watched.known, set[str]()
    for each in known.backups:
        if each["state"] not in GOOD or each["future"] or not each["created"]:
            continue
        for part in set(each["parts"]) - dated:
            dated.add(part)
            time = parse_stamp(each["created"]).timestamp()
            yield "backup_last_success_timestamp_seconds", (part,), time
            yield "backup_size_bytes", (part,), each["sizes"].get(part, 0)
            yield "backup_added_bytes", (part,), each["added"].get(part, 0)
    if newest := known.newest:
        yield "backup_needed_bytes", (), needed(newest)
        if isinstance(newest["seconds"], (int, float)):
            yield "backup_duration_seconds", (), newest["seconds"]
    if watched.away:
        return
    counted = Counter(each["state"] for each in known.backups)
    for state in _STATES:
        yield "backups", ("local", state), counted[state]
    if watched.copies:
        yield "backups", ("remote", "seen"), watched.copies
