"""How far an operation is, told honestly."""

import pytest

from ckanext.dbmanage.engine import course
from ckanext.dbmanage.engine.course import Course, Took, rough


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that a test sets."""
    now = [1000.0]
    monkeypatch.setattr(course.time, "monotonic", lambda: now[0])
    return now


def _planned() -> Course:
    made = Course()
    before = [Took("dump", 10, 200, 100), Took("load", 30), Took("verify", 10, 50, 50)]
    made.plan(["dump", "load", "verify"], before)
    return made


def test_the_time_left_is_of_all_that_is_ahead(clock: list[float]) -> None:
    job = _planned()
    job.count("dump", 0, 100)
    assert job.left() == 50 and job.share() == 0
    assert (job.number, job.count_all) == (1, 3)
    clock[0] += 5
    # tables are a guess at their dump: twice as large the last time, so now
    job.count("dump", 100, 100)
    assert job.whole == 200 and job.left() == 45 and job.share() == 0.1


def test_it_grows_with_the_work_and_slows_down_with_it(clock: list[float]) -> None:
    job = _planned()
    job.count("dump", 0, 200)
    assert job.left() == 60  # as many bytes again as the last time
    clock[0] += 20
    job.count("dump", 200, 200)
    assert job.left() == pytest.approx(
        40 + 15
    )  # seen are 20 more, the last time said 10


def test_a_stage_without_bytes_takes_the_share_it_took(clock: list[float]) -> None:
    job = _planned()
    job.count("dump", 200, 100)
    clock[0] += 10
    job.count("load", 0, 0)
    clock[0] += 15
    assert job.left() == 25 and job.share() == pytest.approx(0.5)


def test_a_time_left_that_is_not_believed_is_not_told(clock: list[float]) -> None:
    job = _planned()
    job.count("load", 0, 0)
    clock[0] += 29
    assert job.left() == 11
    clock[0] += 60  # it takes longer than the last time: nobody knows how long
    assert job.left() is None
    share = job.share()
    job.count("verify", 10, 50)
    clock[0] += 3
    job.count("verify", 25, 50)
    assert job.left() is not None and job.share() >= share
    clock[0] += 30  # not a byte for half a minute
    assert job.left() is None
    first = Course()
    first.plan(["dump", "verify"])
    first.count("dump", 50, 100)
    clock[0] += 5
    assert first.left() is None  # of what is ahead nothing is known
    first.count("verify", 50, 100)
    clock[0] += 5
    assert first.left() == pytest.approx(5)  # nothing is ahead, and it moves


def test_what_was_looked_at_before_a_question_is_no_part_of_it() -> None:
    job = Course()
    job.count("verify", 9, 9)
    job.end()
    job.plan(["verify", "load"])
    job.count("verify", 0, 9)
    assert (job.number, job.count_all, job.share()) == (1, 2, 0)
    job.end()
    job.plan(["load", "check"])  # this one goes on, and more is known of it
    assert (job.number, job.count_all) == (1, 3)


def test_the_share_never_goes_back_and_is_whole_at_the_end(clock: list[float]) -> None:
    job, shares = _planned(), []
    steps = [("dump", 50, 100), ("dump", 90, 300), ("load", 0, 0), ("found", 1, 2),
             ("verify", 50, 50), ("verify", 60, 50)]  # fmt: skip
    for step in steps:
        clock[0] += 9
        job.count(*step)
        shares.append(job.share())
    assert shares == sorted(shares) and shares[-1] < 1
    job.end()
    assert job.share() == 1


def test_nothing_is_known_of_the_first_time(clock: list[float]) -> None:
    job = Course()
    job.plan(["dump", "load"])
    job.count("dump", 0, 0)
    clock[0] += 5
    assert job.share() == 0 and job.left() is None and job.whole == 0
    job.count("load", 0, 0)
    clock[0] += 7
    assert job.share() == 0.5 and job.seconds == 12
    job.end()
    assert [(t.name, t.seconds) for t in job.took] == [("dump", 5), ("load", 7)]
    assert (job.share(), job.seconds, job.left()) == (1, 12, None)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "5 s"), (38, "40 s"), (170, "3 min"), (7700, "2 h 10 min")],
)
def test_a_time_left_is_as_rough_as_it_is_known(seconds: float, said: str) -> None:
    assert rough(seconds) == said
