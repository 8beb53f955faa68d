"""Errors of a database say what failed, and never the values of a statement."""

from __future__ import annotations

import traceback
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from ckanext.dbmanage.engine.errors import (
    DbmanageError,
    explanation_of,
    hide_values,
    message_of,
    summary_of,
)
from ckanext.dbmanage.portal.isolated import without_values

from ..support.cluster import superuser
from ..support.portal import Portal

HASH, KEY = "$pbkdf2-sha512$25000$secret", "b7c1-a-key"
STATEMENTS = {
    "a row": "INSERT INTO t VALUES (%(hash)s, %(key)s, NULL)",
    "a key": "INSERT INTO t VALUES (%(hash)s, %(key)s, 1), (%(hash)s, %(key)s, 2)",
    "a line": "INSERT INTO nowhere VALUES (%(hash)s, %(key)s)",
    "a statement": "SELECT %(hash)s || %(key)s FROM t WHERE apikey = 1",
}


@pytest.fixture(params=STATEMENTS, ids=str)
def failure(request: pytest.FixtureRequest) -> Iterator[Exception]:
    """What SQLAlchemy raises of a statement with a hash and a key in it."""
    engine = sa.create_engine("postgresql://", creator=superuser)
    with engine.connect() as connection:
        connection.exec_driver_sql(
            "CREATE TEMPORARY TABLE t (hash text, apikey text UNIQUE, n int NOT NULL)"
        )
        with pytest.raises(sa.exc.DBAPIError) as raised:
            connection.exec_driver_sql(
                STATEMENTS[request.param], {"hash": HASH, "key": KEY}
            )
        yield raised.value
    engine.dispose()


def test_an_error_is_told_without_values(failure: Exception) -> None:
    assert HASH in str(failure)
    for said in (message_of(failure), explanation_of(failure), summary_of(failure)):
        assert HASH not in said and KEY not in said
        assert any(what in said for what in ("violates", "exist", "operator")), said


def test_an_address_is_told_without_its_account_and_its_query() -> None:
    asked = "?q=" + "x" * 600
    error = OSError(f"no answer: http://solr:secret@host:8983/solr/ckan/select{asked}'")
    assert message_of(error) == "no answer: http://***@host:8983/solr/ckan/select?…'"
    assert len(message_of(OSError("x" * 9999))) < 510
    assert message_of(OSError("is it up? yes")) == "is it up? yes"


def test_a_summary_is_the_class_and_as_much_as_fits() -> None:
    assert summary_of(OSError("no room")) == "OSError: no room"
    long = summary_of(OSError("x" * 400))
    assert len(long) < 310 and long.startswith("OSError: xxx") and long.endswith(" …")


def test_an_error_of_the_disk_is_told_with_its_file() -> None:
    assert explanation_of(OSError(28, "No space", "/x")) == "/x: No space"
    assert explanation_of(OSError("no answer")) == "no answer"


def test_what_is_found_by_field_is_no_dictionary() -> None:
    error = Exception("None - {'name': ['Missing value']}")
    error.error_summary = {"Name": "Missing value", "URL": "Bad"}  # type: ignore[attr-defined]
    assert message_of(error) == "Name: Missing value; URL: Bad"


def test_a_log_and_a_program_s_last_words_hold_none(failure: Exception) -> None:
    printed = traceback.format_exception(failure)
    lines = "".join(printed).splitlines(keepends=True)
    kept = "".join(without_values(lines))
    assert HASH not in kept and KEY not in kept and "Error: " in kept
    try:
        raise DbmanageError("it failed") from failure
    except DbmanageError as error:
        hide_values(error)
        logged = "".join(traceback.format_exception(error))
    assert "parameters hidden" in logged and "[parameters" not in logged


def test_ckan_that_cannot_start_tells_no_parameters(portal: Portal) -> None:
    portal.sql(
        "DELETE FROM \"user\" WHERE name NOT LIKE 'user-%';"
        'REVOKE INSERT ON "user" FROM ckan_default'
    )
    _, repository = portal.engine()
    with repository.lock("mark"):
        repository.mark("reindex", True)
    done = portal.module("doctor", "--fix", code=1)
    assert "CKAN could not be started: permission denied for table" in done.stderr
    said = done.stderr + done.stdout
    assert (
        "INSERT INTO" not in said
        and "pbkdf2" not in said
        and "row contains" not in said
    )
