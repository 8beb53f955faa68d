"""What Prometheus is told: the names, the labels, and nothing that is not known."""

from __future__ import annotations

import re
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ckanext.dbmanage.engine.clock import now, parse_stamp
from ckanext.dbmanage.operations.metrics import CHECKS, METRICS, metrics
from ckanext.dbmanage.operations.nights import Night, Step, remember, told

from ..support.imports import PACKAGE
from ..support.manual import blocks
from ..support.watched import WatchedSite

PAGE = PACKAGE.parents[1] / "docs" / "watched.rst"


@pytest.fixture
def site(tmp_path: Path) -> WatchedSite:
    return WatchedSite(tmp_path)


def read(site: WatchedSite) -> dict[tuple[str, ...], float]:
    """The values by name and labels, each of which has the site too."""
    found = {}
    for family in text_string_to_metric_families(metrics(site.portal).decode()):
        assert family.type == "gauge" and family.documentation
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("site") == "data.test"
            name = sample.name.removeprefix("ckan_dbmanage_")
            assert list(labels) == sorted(METRICS[name].labels)
            found[(name, *(labels[k] for k in METRICS[name].labels))] = sample.value
    return found


def test_what_is_known_is_told(site: WatchedSite) -> None:
    site.add(40)
    newest = site.add(3, proven=False)
    site.add(-900)
    steps = Step("backup", "done", 61.5), Step("push", "failed", 2, "away")
    night = Night(now() - timedelta(hours=1), now(), steps)
    remember(site.shelf.repository, night, [])
    site.record("nightly", "failed", steps=told(night)["steps"])
    found = read(site)
    taken = parse_stamp(newest.describe()["created"]).timestamp()
    assert found["backup_last_success_timestamp_seconds", "database"] == taken
    assert found["last_success_timestamp_seconds", "backup"] == taken
    assert found["last_success_timestamp_seconds", "proof"] == taken - 37 * 3600
    assert found["age_limit_seconds", "backup"] == 26 * 3600
    assert found["backups", "local", "verified"] == 1
    assert found["backups", "local", "proven"] == 2
    assert found["nightly_step_success", "backup"] == 1
    assert found["nightly_step_success", "push"] == 0
    assert found["nightly_step_duration_seconds", "backup"] == 61.5
    assert found[("nightly_last_run_timestamp_seconds",)] > taken
    assert found[("backup_duration_seconds",)] == 2.5
    assert found[("repository_free_bytes",)] > 0
    states = {check: found["check_state", check] for check in CHECKS}
    bad = {check: state for check, state in states.items() if state}
    assert bad == {"push-failed": 1, "future": 1}


def test_a_time_in_the_future_is_no_time(site: WatchedSite) -> None:
    """By a clock that was a year ahead nothing would ever be late."""
    site.add(-365 * 24)
    found = read(site)
    assert not [name for name in found if "timestamp" in name[0]]
    assert found["check_state", "lacking"] == 2


def test_nothing_that_lies_there_ends_it(site: WatchedSite) -> None:
    site.add(1)
    (site.shelf.path / "20200101T000000Z").mkdir()
    (site.shelf.path / "journal.jsonl").write_bytes(
        b'{"what": "nightly", "time": 3, "steps": [[], {"name": []}, 1]}\n'
        b'{"what": "nightly", "time": "2026-01-01T00:00:00Z", "steps": {}}\n\xff\n'
        b'{"what": "backup", "event": "done", "parts": 5}\n'
        b'{"what": "backup", "event": "done", "parts": [[1], {}]}\n'
    )
    assert read(site)["backups", "local", "damaged"] == 1
    site.shelf.path.rename(site.shelf.path.with_name("gone"))
    site.shelf.path.write_text("no directory")
    found = read(site)
    assert found["check_state", "away"] == 2
    assert not [name for name in found if name[0] == "backups"]


def test_the_names_are_those_that_prometheus_asks_for(site: WatchedSite) -> None:
    """What `promtool check metrics` finds fault with; it looks too, where it is."""
    site.add(3)
    for metric in METRICS.values():
        assert re.fullmatch(r"ckan_dbmanage_[a-z]+(_[a-z]+)*", metric.whole)
        # counters and histograms end so; no name says its type, or another than a
        # base unit
        words = metric.whole.split("_")
        assert words[-1] not in ("total", "count", "sum", "bucket")
        units = "ms minutes hours days kilobytes megabytes gigabytes percent gauge"
        assert not set(words) & set(units.split())
        assert all(re.fullmatch("[a-z_]+", label) for label in metric.labels)
        assert metric.help.strip()
    (rules,) = (text for language, text in blocks(PAGE) if language == "yaml")
    promtool = shutil.which("promtool")  # of Debian's package `prometheus`
    if promtool:
        file = site.directory / "rules.yml"
        file.write_text(rules)
        for words, text in (("rules", file), b""), (("metrics",), metrics(site.portal)):
            command = [promtool, "check", *words]
            subprocess.run(command, input=text, check=True, capture_output=True)


def test_the_rules_of_the_manual_name_what_there_is() -> None:
    (rules,) = (text for language, text in blocks(PAGE) if language == "yaml")
    named = re.findall(r"ckan_dbmanage_(\w+)", rules)
    assert named and set(named) <= set(METRICS)
