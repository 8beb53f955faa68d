"""The other place is thinned out; nobody pushes the real backups out."""

from __future__ import annotations

from datetime import datetime, timedelta

from ckanext.dbmanage.engine.clock import id_stamp, now
from ckanext.dbmanage.engine.offsite.prune import Decision, decide, forget
from ckanext.dbmanage.engine.offsite.snapshots import Snapshot, snapshots

from ...support.offsite import restic, served
from ...support.offsite import snapshots as shown
from .conftest import Copied

NONE = {"last": 1, "days": 0, "weeks": 0, "months": 0}
NOON = datetime(2020, 11, 30, 12)


def _there(*moments: datetime) -> list[Snapshot]:
    ids = sorted(map(id_stamp, moments), reverse=True)
    return [Snapshot(id, f"{n:064x}", "portal") for n, id in enumerate(ids)]


def _decide(
    there: list[Snapshot], here: set[str], policy: dict[str, int]
) -> list[Decision]:
    return decide(there, here, policy, {each.id for each in there})


def _kept(found: list[Decision]) -> list[str]:
    return [each.id for each in found if not each.forget]


def test_the_rules_keep_days_weeks_and_months() -> None:
    there = _there(*(NOON - timedelta(days=n) for n in range(60)))
    kept = _kept(_decide(there, set(), NONE | {"last": 2, "days": 3, "months": 2}))
    wanted = ["20201130", "20201129", "20201128", "20201031"]
    assert [id[:8] for id in kept] == wanted


def test_what_is_here_stays_there() -> None:
    there = _there(*(NOON - timedelta(days=n) for n in range(9)))
    here = {there[5].id, there[8].id}
    kept = _kept(_decide(there, here, NONE))
    assert kept == [there[0].id, there[5].id, there[8].id]


def test_snapshots_dated_in_the_future_push_none_out() -> None:
    real = [NOON - timedelta(days=n) for n in range(3)]
    future = [now() + timedelta(days=n) for n in range(1, 40)]
    found = _decide(_there(*real, *future), set(), NONE | {"last": 3, "days": 3})
    assert {id_stamp(each) for each in real} <= set(_kept(found))
    assert not [each for each in found if each.forget]
    assert any("in the future: never touched" in each.reason for each in found)


def test_snapshots_that_nobody_vouches_for_push_none_out() -> None:
    """Dated an hour after each real one they would be each day's newest."""
    real = _there(*(NOON - timedelta(days=n) for n in range(5)))
    planted = _there(*(NOON + timedelta(hours=1) - timedelta(days=n) for n in range(5)))
    there = sorted([*real, *planted], key=lambda each: each.id, reverse=True)
    own = {each.id for each in real}
    found = decide(there, set(), NONE | {"days": 2}, own)
    assert set(_kept(found)) & own == {real[0].id, real[1].id}
    assert not own & {each.id for each in found if "never touched" in each.reason}
    assert len([each for each in found if "never touched" in each.reason]) == 5


def test_snapshots_that_say_another_time_than_their_id_are_not_ours(
    pushed: Copied,
) -> None:
    name = pushed.repository.names()[0]
    forged = ["backup", name, "--host", pushed.site.id, "--tag", "dbmanage"]
    restic(
        pushed.address, *forged, "--tag", "20301231T000000Z", "--time",
        "2020-01-01 00:00:00", cwd=pushed.path,
    )  # fmt: skip
    restic(pushed.address, *forged, "--tag", "../../etc", cwd=pushed.path)
    with pushed.reached() as at:
        assert {e.id for e in pushed.there(at)} == set(pushed.repository.names())
        assert not snapshots(at, "another")


def test_what_is_forgotten_is_gone(pushed: Copied, each_restic: str) -> None:
    last, first = pushed.repository.names()
    with pushed.reached() as at:
        assert forget(at, pushed.there(at), {first})
        assert [each.id for each in pushed.there(at)] == [last]
    restic(pushed.address, "check", "--read-data")
    pushed.lose()
    assert pushed.pull(last).signed


def test_a_place_that_appends_only(pushed: Copied, each_restic: str) -> None:
    with served(pushed.directory, "--append-only") as address:
        pushed.address = address.replace("/portal", "/there")
        with pushed.reached() as at:
            assert not forget(at, pushed.there(at), set(pushed.repository.names()))
        assert len(shown(pushed.address)) == 2
        pushed.push()
        pushed.lose()
        assert pushed.pull().signed
