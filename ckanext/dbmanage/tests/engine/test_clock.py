"""Times as people type and read them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ckanext.dbmanage.engine import clock


def test_a_time_span_is_read() -> None:
    read = {text: clock.seconds_of(text) for text in ("90s", "90m", "2h", "1d")}
    assert read == {"90s": 90, "90m": 5400, "2h": 7200, "1d": 86400}
    for wrong in ("", "m", "0m", "-1m", "1w", "1.5h", "30", "³m", "9999999d", "1d1h"):
        with pytest.raises(ValueError, match="such as 90s"):
            clock.seconds_of(wrong)


def test_a_time_of_the_day_is_today_s_or_tomorrow_s() -> None:
    for hours in (1, -1):
        there = clock.now() + timedelta(hours=hours)
        seconds = clock.seconds_until(f"{there:%H:%M}")
        # a minute is left out, and may end between the two
        assert abs(seconds - (hours % 24) * 3600) <= 61
    for wrong in ("24:00", "9:5", "12:60", "15:40:00", "noon", "٣:٠٠"):
        with pytest.raises(ValueError, match="such as 15:40"):
            clock.seconds_until(wrong)


def test_a_time_of_the_day_that_is_now_is_tomorrow_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    noon = clock.parse_stamp("2026-11-23T12:00:00Z")
    monkeypatch.setattr(clock, "now", lambda: noon)
    assert clock.seconds_until("12:00") == 86400
    assert clock.seconds_until("12:01") == 60
    assert clock.seconds_until("0:00") == 12 * 3600
    monkeypatch.setattr(clock, "now", lambda: noon - timedelta(seconds=1))
    assert clock.seconds_until("12:00") == 1


def test_the_end_of_a_time_is_told_to_the_nearest_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = clock.parse_stamp("2026-11-23T12:00:10Z")
    monkeypatch.setattr(clock, "now", lambda: now)
    assert clock.time_ahead(1800) == "12:30 UTC (for 30 minutes)"
    # a moment of it is over
    assert clock.time_ahead(1789.9) == "12:30 UTC (for 29 minutes 50 seconds)"
    assert clock.time_ahead(86400) == "24 Nov 12:00 UTC (for 1 day)"


def test_a_clock_that_differs_by_minutes_is_not_wrong() -> None:
    assert not clock.is_future(clock.now() + clock.SKEW - timedelta(seconds=9))
    assert clock.is_future(clock.now() + clock.SKEW + timedelta(seconds=9))
    week = timedelta(days=7)
    for days, older in ((6, False), (8, True), (-1, True)):
        there = clock.stamp(clock.now() - timedelta(days=days))
        assert clock.is_older(there, week) == older


def test_a_stamp_is_read_in_either_form_and_no_other() -> None:
    whole, precise = "2026-11-23T04:55:00Z", "2026-11-23T04:55:00.120000Z"
    there = clock.parse_stamp("2026-11-23T04:55:00.12Z")
    assert there.microsecond == 120_000
    assert clock.stamp(there) == whole and clock.precise_stamp(there) == precise
    assert clock.is_stamp(whole) and clock.is_stamp(precise)
    for wrong in ("2026-11-23", "2026-13-23T04:55:00Z", whole + "\n", "yesterday"):
        assert not clock.is_stamp(wrong)


def test_a_time_span_is_told_by_its_largest_units() -> None:
    told = [clock.span(n) for n in (0, 1, 1800, 5400, 86400, 90061)]
    assert told == [
        "0 seconds", "1 second", "30 minutes", "1 hour 30 minutes", "1 day",
        "1 day 1 hour",
    ]  # fmt: skip


def test_a_moment_is_told_with_its_year_where_that_is_another() -> None:
    there = clock.parse_stamp("2001-11-06T06:39:00Z")
    assert clock.day_and_time(there) == "6 Nov 2001 06:39 UTC"
    assert clock.ago(clock.now() - timedelta(minutes=61)) == "1 hour ago"
    assert clock.ago(clock.now() + timedelta(minutes=61)) == "just now"
    assert clock.time_ahead(60).endswith(" UTC (for 1 minute)")
    assert f"{(clock.now() + timedelta(days=2)):%b}" in clock.time_ahead(2 * 86400)
