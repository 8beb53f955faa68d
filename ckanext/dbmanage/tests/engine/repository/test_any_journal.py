"""What holds for any journal: lines that are torn, foreign, or written at once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from ckanext.dbmanage.engine.repository import journal
from ckanext.dbmanage.engine.repository.journal import DEEDS, Entry, Journal

from ...support.anything import JSON, TEXT, changed, scratch

_KEY = b"the key of this test"
_EVENTS = st.sampled_from((*DEEDS, "done", "failed")) | TEXT
_FACTS = st.dictionaries(
    TEXT.filter(lambda name: name not in ("event", "number", "hmac")), JSON, max_size=4
)
_LINES = st.lists(st.tuples(_EVENTS, _FACTS), max_size=8)
#: what others may have written, a line each
_FOREIGN = st.one_of(
    st.binary(max_size=60).map(lambda raw: raw.replace(b"\n", b"")),
    JSON.map(lambda document: json.dumps(document).encode()),
    st.sampled_from(DEEDS).map(lambda event: b'{"event": "%s"}' % event.encode()),
)


def _same(entries: Iterable[Entry], lines: list[dict[str, Any]]) -> bool:
    """Whether these are the lines; as JSON, in which NaN is itself."""
    found = [{k: v for k, v in e.fields.items() if k not in ("hmac", "number")}
             for e in entries]  # fmt: skip
    return json.dumps(found) == json.dumps(lines)


@given(_LINES, st.data())
def test_what_was_noted_is_read_whatever_stands_beside_it(
    wanted: list[tuple[str, dict[str, Any]]], data: st.DataObject
) -> None:
    with scratch() as directory:
        path = Path(directory, "journal.jsonl")
        lines = [facts | {"event": event} for event, facts in wanted]
        for line in lines:
            Journal(path, (_KEY,)).record(line)
            if foreign := data.draw(st.lists(_FOREIGN, max_size=2)):
                with path.open("ab") as file:
                    file.write(b"".join(each + b"\n" for each in foreign))
            if torn := data.draw(st.just(b"") | _FOREIGN):
                with path.open("ab") as file:  # a power cut
                    file.write(torn)
        deeds = [line for line in lines if line["event"] in DEEDS]
        reader = Journal(path, (_KEY,))
        assert _same(reader.deeds(), deeds)
        signed = [e for e in reader.end() if "hmac" in e.fields and e.event]
        assert _same([e for e in signed if e.event in DEEDS], deeds)
        assert not {number for number, _ in reader.others()} & {0}
        assert len([e for e in reader.end() if e in signed]) == len(signed)


@given(_LINES, st.data())
def test_of_a_torn_or_changed_file_only_true_lines_are_believed(
    wanted: list[tuple[str, dict[str, Any]]], data: st.DataObject
) -> None:
    with scratch() as directory:
        path = Path(directory, "journal.jsonl")
        own = Journal(path, (_KEY,))
        for event, facts in wanted:
            own.record(facts | {"event": event})
        whole = path.read_bytes() if wanted else b""
        cut = data.draw(st.integers(0, len(whole)))
        path.write_bytes(whole[:cut])
        lines = [facts | {"event": event} for event, facts in wanted]
        left = [line for line in lines[: whole[:cut].count(b"\n")]
                if line["event"] in DEEDS]  # fmt: skip
        assert _same(Journal(path, (_KEY,)).deeds(), left)
        Journal(path, (_KEY,)).record({"event": "switch"})
        assert _same(Journal(path, (_KEY,)).deeds(), [*left, {"event": "switch"}])
        # and of any other change: no line that was not written, each at most once
        every = whole.splitlines(keepends=True)
        mixed = (
            st.lists(st.sampled_from(every)).map(b"".join) if every else st.just(b"")
        )
        path.write_bytes(data.draw(changed(whole) | mixed))
        there = Journal(path, (_KEY,))
        numbers = [entry.fields["number"] for entry in there.deeds()]
        assert numbers == sorted(set(numbers))
        written = {json.dumps(json.loads(line)) for line in whole.splitlines()}
        assert {json.dumps(entry.fields) for entry in there.deeds()} <= written
        there.end(), there.others()


@given(_LINES, st.lists(_FOREIGN, max_size=30), st.integers(1, 2000))
def test_a_journal_that_is_begun_anew_tells_the_same(
    wanted: list[tuple[str, dict[str, Any]]], foreign: list[bytes], large: int
) -> None:
    with scratch() as directory, ExitStack() as stack:
        for name, size in (("_LARGE", large), ("_SHOWN", 300), ("_OTHERS", 300)):
            stack.enter_context(patch.object(journal, name, size))
        path = Path(directory, "journal.jsonl")
        own = Journal(path, (_KEY,))
        for event, facts in wanted:
            own.record(facts | {"event": event})
        with path.open("ab") as file:
            file.write(b"".join(line + b"\n" for line in foreign))
        before = own.deeds()
        if (content := own.renewed()) is not None:
            assert len(content) < path.stat().st_size
            path.write_bytes(content)
        assert Journal(path, (_KEY,)).deeds() == before


_NOTE = """
import sys
from pathlib import Path
from ckanext.dbmanage.engine.repository.journal import Journal
for number in range(200):
    Journal(Path(sys.argv[1]), (b"key",)).record({"event": "done", "n": number, "t": "é" * 999})
"""


def test_lines_of_several_processes_at_once_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    command = [sys.executable, "-c", _NOTE, path]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert not any(process.wait() for process in processes)
    lines = [json.loads(line) for line in path.read_bytes().splitlines() if line]
    assert sorted(line["n"] for line in lines) == sorted([*range(200)] * 3)
