"""One line of progress, however narrow the terminal."""

import json
import os
import pty
import re
import signal
import subprocess
import threading
from collections.abc import Callable

import pytest

from ckanext.dbmanage.cli.output import size
from ckanext.dbmanage.cli.progress import line, stage_name
from ckanext.dbmanage.engine.course import Course, Took

from ..support.portal import Portal


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_it_keeps_one_line(width: int) -> None:
    course = Course()
    stages = ["verify", "unpack datastore", "load datastore", "verify files"]
    course.plan(stages, [Took(name, 4000, 9 << 40, 9 << 40) for name in stages])
    for name in stages:
        course.count(name, 123_456_789_012, 9 << 40)
        said = line(course, size, width)
        assert len(said) < width and stage_name(name) in said and " %" in said
        assert " h " in said  # what it is read for
    assert stage_name("load datastore") == "load DataStore"


def _on_a_terminal(
    portal: Portal, width: int, *words: str, note: Callable[[str], None]
) -> int:
    """Runs a command whose stderr is a terminal, and hands over what is on it."""
    ours, theirs = pty.openpty()
    os.set_blocking(ours, True)
    subprocess.run(["stty", "cols", str(width)], stdin=theirs, check=True)
    process = subprocess.Popen(
        [*portal.module_command, *words], stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=theirs, env=portal.environment,
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    kill = threading.Timer(120, process.send_signal, [signal.SIGKILL])
    kill.start()
    text = b""
    try:
        while chunk := os.read(ours, 1 << 16):
            text += chunk
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    kill.cancel()
    note(text.decode())
    return process.wait()


def test_a_backup_on_a_terminal_ends_with_done(portal: Portal) -> None:
    seen: list[str] = []
    assert _on_a_terminal(portal, 40, "backup", note=seen.append) == 0
    assert "stages: dump, uploads, verify" in seen[0]
    lines = seen[0].replace("\r\n", "\n").split("\n")
    (bar,) = [each for each in lines if "1/4 dump" in each]
    shown = bar.split("\r")
    assert all(len(each) < 40 for each in shown)
    assert re.fullmatch(r"4/4 done in [\d.]+ \w+ *", shown[-1])
    # the next one knows from the journal what each stage takes
    text = (portal.repository / "journal.jsonl").read_text().splitlines()
    (took,) = [e for e in map(json.loads, text) if e["event"] == "took"]
    assert [name for name, *_ in took["stages"]] == [
        "dump", "uploads", "verify files", "verify",
    ]  # fmt: skip
