"""What CKAN's role cannot read is said as that, with the SQL that mends it."""

from __future__ import annotations

import io

import pytest

from ckanext.dbmanage.doctor import checks
from ckanext.dbmanage.engine.backup import dump, take
from ckanext.dbmanage.engine.errors import Refused
from ckanext.dbmanage.engine.operation import Operation

from ...support.portal import Portal

SECRET = 'CREATE SCHEMA own; CREATE TABLE own."Secret" (n serial); INSERT INTO own."Secret" VALUES (1)'
CASES = {
    "a table": "CREATE TABLE shut (line text)",
    "a sequence": "CREATE SEQUENCE shut",
    "a schema": SECRET,
}


@pytest.mark.parametrize("case", CASES)
def test_backup_dump_and_doctor_say_what_cannot_be_read(
    portal: Portal, case: str
) -> None:
    portal.sql(CASES[case])  # as a superuser
    site, repository = portal.engine()
    with repository.lock("backup"), pytest.raises(Refused) as refused:
        take.take(Operation(site, repository), parts=("database",))
    with pytest.raises(Refused, match="may not read all of the database"):
        dump.to_stream(site, "database", io.BytesIO(), lambda *_: None)
    found = checks.databases(None, site, repository)  # type: ignore[arg-type]
    said = [text for state, text in found if state == "problem"]
    assert len(said) == 1 and "no backup can be taken" in said[0]
    lines = str(refused.value).splitlines()[1:]
    assert lines and all(line.strip() in said[0] for line in lines)
    portal.sql("".join(lines))  # can be pasted
    with repository.lock("backup"):
        take.take(Operation(site, repository), parts=("database",))
