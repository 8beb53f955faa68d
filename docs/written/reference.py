"""Exit codes, events of the journal, metrics."""

from __future__ import annotations

from collections.abc import Iterator

from . import text

CODES = """
A command ends with one of these, so that a script, a timer or a monitor knows how it went.
What a command prints on stdout is complete only with exit code 0.
"""
FAILS = """
These do their work to the end, and then tell by exit code 1 that something of it is not
well. What that is stands on stderr.
"""
MONITOR = """
``ckan db doctor --nagios`` ends with the codes of a monitor's plugins, whatever happens.
`Watched <watched.rst>`_ tells how a monitor calls it.
"""
WORKER = """
``ckan db worker`` ends as CKAN's own worker does. A shell says 127 where there is no
``ckan``, and 137 where a command was killed, as by the kernel when memory is short.
"""
JOURNAL = """
``journal.jsonl`` in the repository has a line of JSON for each thing that was done, with
who did it, and for what is half-way. `Backups <backups.rst>`_ says where it is; ``ckan db
doctor`` and the sysadmin page read it. To follow it while something runs is safe. Nobody
else may write to it: a line is only believed when this site has signed it.
"""
MOVES = """
These lines move databases and folders. They have a ``number``. A command that was killed is
finished or turned back by what they say, by the next one.
"""
METRICS = """
``ckan db metrics`` prints these for Prometheus; `Watched <watched.rst>`_ says how they get
there, and has rules for alerts. Each is a gauge, and has the label ``site``, which is the
site's address. What is not known has no sample, nor has a time in the future.
"""


def exit_codes() -> Iterator[str]:
    from ckanext.dbmanage.cli.codes import FAILS as fails
    from ckanext.dbmanage.cli.codes import MEANINGS
    from ckanext.dbmanage.doctor.monitored import CODES as words

    yield text.page("Exit codes", "cli/codes.py and doctor/monitored.py", CODES)
    yield text.table(["Code", "Meaning"], ((str(n), m) for n, m in MEANINGS.items()))
    yield text.title("Done, but not well")
    yield text.wrapped(FAILS)
    rows = ((f"``{name}``", why) for name, why in fails.items())
    yield text.table(["Command", "Ends with 1 when"], rows)
    yield text.title("For a monitor")
    yield text.wrapped(MONITOR)
    yield text.table(
        ["Code", "Word", "Meaning"],
        ((str(code), f"``{word}``", why) for word, (code, why) in words.items()),
    )
    yield text.title("What others end with")
    yield text.wrapped(WORKER)


def journal() -> Iterator[str]:
    from ckanext.dbmanage.engine.repository import events

    def listed(found: dict[str, events.Event]) -> str:
        return text.table(
            ["Event", "What it says", "Fields"],
            (
                (f"``{name}``", text.literal(about.says),
                 ", ".join(f"``{field}``" for field in about.fields))
                for name, about in found.items()
            ),
        )  # fmt: skip

    def described(found: dict[str, str]) -> str:
        rows = ((f"``{name}``", text.literal(says)) for name, says in found.items())
        return text.table(["Field", "What it says"], rows)

    yield text.page("Journal", "engine/repository/events.py", JOURNAL)
    yield text.title("In each line")
    yield described(events.COMMON)
    yield text.title("What is acted upon")
    yield text.wrapped(MOVES)
    yield listed(events.MOVES)
    yield text.title("What is told")
    names = [name for name in events.EVENTS if name not in events.MOVES]
    yield listed({name: events.EVENTS[name] for name in names})
    yield text.title("How something ended")
    yield text.wrapped(
        "By its ``what``, a line has these fields too. Others have none."
    )
    yield text.table(
        ["``what``", "Fields"],
        (
            (f"``{what}``", ", ".join(f"``{field}``" for field in fields))
            for what, fields in events.ENDED.items()
        ),
    )
    yield text.title("Fields")
    yield described(events.FIELDS)


def metrics() -> Iterator[str]:
    from ckanext.dbmanage.operations.metrics import CHECKS
    from ckanext.dbmanage.operations.metrics import METRICS as found

    yield text.page("Metrics", "operations/metrics.py", METRICS)
    yield text.table(
        ["Metric", "What it says", "Labels"],
        (
            (f"``{each.whole}``", each.help, ", ".join(f"``{n}``" for n in each.labels))
            for each in found.values()
        ),
    )
    yield text.title("Checks")
    yield text.wrapped(
        "``check`` is one of " + ", ".join(f"``{each}``" for each in CHECKS) + "."
    )
