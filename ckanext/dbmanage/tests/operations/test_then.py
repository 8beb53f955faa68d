"""One thing is read out of a backup, by CKAN on a copy of what it needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ckanext.dbmanage.engine.operation import Operation
from ckanext.dbmanage.engine.report import Silent
from ckanext.dbmanage.operations.context import Portal as Opened
from ckanext.dbmanage.operations.context import find_site
from ckanext.dbmanage.operations.then import Then, open_then, then
from ckanext.dbmanage.portal.config import Options

from ..support.portal import Portal

TABLE = "00000000-0000-4000-8000-000000000000"


class Heard(Silent):
    def __init__(self) -> None:
        self.warned: list[str] = []

    def warn(self, sentence: str) -> None:
        self.warned.append(sentence)


@contextmanager
def read(
    portal: Portal, kind: str, *names: str, with_datasets: bool = False
) -> Iterator[tuple[Then, list[str]]]:
    talk = Heard()
    options = Options(portal.options | {"__file__": str(portal.ini)})
    opened = Opened(options, talk)
    site, repository = find_site(opened, heads=True)
    source = open_then(site, repository, "latest", kind, False, talk)
    op = Operation(site, repository, talk)
    with then(opened, op, source, kind, names, with_datasets) as found:
        yield found, talk.warned


def test_a_dataset_is_what_it_was(portal: Portal) -> None:
    portal.sql(
        f"UPDATE resource SET id = '{TABLE}',"
        " extras = '{\"datastore_active\": true}' WHERE id = 'r-3'"
    )
    portal.backup()
    portal.damage()
    with read(portal, "dataset", "dataset-3") as (found, warned):
        (thing,) = found.things
        assert thing.tables == [TABLE]
        assert found.rows == {TABLE: 50}
