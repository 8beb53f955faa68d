"""What fails for a moment only, and what does not; tried again, some times, and told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import psycopg2
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from ckanext.dbmanage.engine.errors import ConnectionFailed, DbmanageError, ToolFailed
from ckanext.dbmanage.engine.postgres import again as again_
from ckanext.dbmanage.engine.postgres.again import again, passes
from ckanext.dbmanage.engine.postgres.database import Database
from ckanext.dbmanage.engine.postgres.programs import finish, running

from ...support.cluster import PASSWORD, PG_BIN, SUPERUSER, query, superuser
from ...support.portal import Portal
from ...support.waiting import wait_until

AT = f"127.0.0.1:{SUPERUSER.port}"


def failure(work: Callable[[], Any]) -> BaseException:
    with pytest.raises(Exception) as failed:
        work()
    return failed.value


@pytest.fixture
def two(portal: Portal) -> Iterator[list[Any]]:
    """Two sessions in a portal's database."""
    made = [psycopg2.connect(portal.url("database")) for _ in range(2)]
    yield made
    for each in made:
        each.close()


def test_a_deadlock_passes(two: list[Any]) -> None:
    one, other = (each.cursor() for each in two)
    one.execute("LOCK TABLE package_tag")
    other.execute("LOCK TABLE tag")
    found: list[BaseException] = []

    def wait() -> None:
        try:
            one.execute("LOCK TABLE tag")
        except psycopg2.Error as error:
            found.append(error)
            two[0].rollback()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        other.execute("LOCK TABLE package_tag")
    except psycopg2.Error as error:
        found.append(error)
        two[1].rollback()
    thread.join()
    assert [type(each).__name__ for each in found] == ["DeadlockDetected"]
    assert passes(found[0])
    # behind an error of ours, too
    with suppress(DbmanageError):
        try:
            raise found[0]
        except psycopg2.Error as error:
            told = DbmanageError("the rights could not be set")
            assert not passes(told)
            raise told from error
    assert passes(told)


def test_a_serialization_failure_passes(two: list[Any]) -> None:
    one, other = two
    for each in two:
        each.set_session(isolation_level="SERIALIZABLE")
        each.cursor().execute("SELECT count(*) FROM package")
    one.cursor().execute("UPDATE package SET title = 'one' WHERE id = 'id-1'")
    one.commit()
    late = "UPDATE package SET title = 'other' WHERE id = 'id-1'"
    error = failure(lambda: other.cursor().execute(late))
    assert getattr(error, "pgcode", "") == "40001" and passes(error)


def test_a_session_that_is_ended_passes(portal: Portal, two: list[Any]) -> None:
    pid = two[0].info.backend_pid
    query(f"SELECT pg_terminate_backend({pid}, 5000)")
    assert passes(failure(lambda: two[0].cursor().execute("SELECT 1")))
    assert passes(failure(lambda: two[0].cursor()))  # closed by now
    # as CKAN's own code hears of it
    with sa.create_engine(portal.url("database")).connect() as connection:
        pid = connection.execute(sa.text("SELECT pg_backend_pid()")).scalar()
        query(f"SELECT pg_terminate_backend({pid}, 5000)")
        assert passes(failure(lambda: connection.execute(sa.text("SELECT 1"))))


def test_a_lost_connection_passes_by_whatever_name_the_driver_gives_it() -> None:
    said = "server closed the connection unexpectedly\n\tThis probably means …"
    for error in (psycopg2.DatabaseError(said), psycopg2.OperationalError(said)):
        assert passes(error) and passes(sa.exc.DBAPIError("SELECT 1", None, error))
    assert not passes(psycopg2.DatabaseError("can't adapt type 'set'"))


def test_a_server_that_is_not_up_passes_and_a_wrong_name_does_not() -> None:
    up = f"postgresql://ckan_default:{PASSWORD}@{AT}"
    for url, wanted in (
        (f"postgresql://ckan_default:{PASSWORD}@127.0.0.1:9/postgres", True),
        (f"{up}/no_such_database", False),
        (f"postgresql://ckan_default:wrong@{AT}/postgres", False),
    ):
        database = Database("database", make_url(url))
        error = failure(database.connect)
        assert isinstance(error, ConnectionFailed) and passes(error) == wanted, error


def test_what_a_statement_itself_says_does_not_pass(two: list[Any]) -> None:
    for statement in ("SELECT 1 / 0", "SELECT nothing", "LOCK TABLE none"):
        assert not passes(failure(lambda: two[0].cursor().execute(statement)))  # noqa: B023
        two[0].rollback()
    assert not passes(DbmanageError("deadlock detected"))  # not of a server


def test_a_client_program_that_is_cut_off_passes(portal: Portal) -> None:
    name = portal.names["database"]
    database = portal.site().databases["database"]
    target, environment = database.program()
    with closing(superuser(name)) as holding:
        holding.autocommit = False
        holding.cursor().execute("LOCK TABLE tag")
        arguments = [str(PG_BIN / "pg_dump"), "-Fc", "-f/dev/null", *target]
        with running(arguments, environment, stdin=-3) as process:
            wait_until(lambda: query(_waiting(name, "pg_terminate_backend(pid)")))
            error = failure(lambda: finish(process, "dumping"))
    assert isinstance(error, ToolFailed) and passes(error), error


def _waiting(name: str, what: str) -> str:
    return (
        f"SELECT {what} FROM pg_stat_activity WHERE datname = '{name}'"
        " AND wait_event_type = 'Lock'"
    )


def test_it_is_tried_some_times_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(again_, "WAITS", (0.01, 0.01))
    told: list[str] = []
    left = [psycopg2.InterfaceError("connection already closed")]

    def work() -> str:
        if left:
            raise left.pop()
        return "done"

    assert again("reading", work, told.append) == "done"
    assert told == [
        "reading did not work, and is tried again: PostgreSQL: connection already closed"
    ]
    for count, kept, may in ((3, 0, True), (1, 2, False)):
        left += [psycopg2.InterfaceError("connection already closed")] * 3
        assert passes(failure(lambda: again("it", work, told.append, lambda: may)))  # noqa: B023
        assert len(left) == kept, count
        left.clear()
    left += [psycopg2.InterfaceError("gone"), psycopg2.ProgrammingError("wrong")]
    left.reverse()
    assert isinstance(
        failure(lambda: again("it", work, told.append)), psycopg2.ProgrammingError
    )


def test_a_backup_goes_on_after_a_session_is_ended(portal: Portal) -> None:
    """pg_dump waits for a lock, and is cut off; nothing of the first dump is left."""
    name = portal.names["database"]
    with closing(superuser(name)) as holding:
        holding.autocommit = False
        holding.cursor().execute("LOCK TABLE tag")
        process = portal.start("backup")
        wait_until(lambda: query(_waiting(name, "pg_terminate_backend(pid)")))
    printed, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "dumping the databases did not work, and is tried again: " in said
    portal.module("verify", printed.strip())
    assert [b["state"] for b in portal.backups()] == ["verified"]
