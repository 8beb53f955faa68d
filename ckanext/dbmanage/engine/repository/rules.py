"""The rules of retention: which of some moments they keep. Knows no backups."""

from collections.abc import Iterator, Mapping
from datetime import timedelta

from ..clock import parse_id, span

#: the rules that keep the newest one of a period, and the periods' names
RULES = {
    "hours": "hour %Y-%m-%d %H",
    "days": "day %Y-%m-%d",
    "weeks": "week %G-W%V",
    "months": "month %Y-%m",
    "years": "year %Y",
}
#: what a gap between two backups counts at most, for `within`
_GAP = timedelta(days=7)


def ruled(names: list[str], policy: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """The backups that a rule keeps, with the rule; `names` are the newest first.

    `policy`: how many of the `last`, of each of `RULES`, and for how many seconds all
    (`within`); a rule that is not there keeps none. Only what is there counts: an hour
    or a month without a backup uses none up.
    """
    for name in names[: policy.get("last", 0)]:
        yield name, f"the last {policy['last']}"
    if within := policy.get("within", 0):
        yield from ((name, f"within {span(within)}") for name in _within(names, within))
    for rule, form in RULES.items():
        periods: set[str] = set()
        for name in names:
            period = parse_id(name).strftime(form)
            if period not in periods and len(periods) < policy.get(rule, 0):
                periods.add(period)
                yield name, period


def _within(names: list[str], seconds: int) -> Iterator[str]:
    """The backups of the last time, up to the newest one.

    The clock has no say, nor has a long gap: else one night with a clock that is a year
    ahead would make all others a year old.
    """
    age = timedelta()
    for number, name in enumerate(names):
        if number:
            age += min(parse_id(names[number - 1]) - parse_id(name), _GAP)
        if age > timedelta(seconds=seconds):
            return
        yield name
