"""The roles that a new server lacks are made where somebody here may."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from ckanext.dbmanage.engine.errors import ConnectionFailed, Refused
from ckanext.dbmanage.engine.postgres import roles
from ckanext.dbmanage.engine.postgres.database import Database

from ...support.cluster import Cluster


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory that the server's own user may enter as well."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)  # noqa: S103
        monkeypatch.setattr(roles, "_SOCKETS", directory)
        yield Path(directory)


def test_they_are_made_by_the_local_socket(
    sockets: Path, make_cluster: Callable[..., Cluster]
) -> None:
    server = make_cluster("-k", str(sockets), "-c", "log_statement=all")
    at = f"127.0.0.1:{server.port}/portal"
    main = Database(
        "database",
        make_url(f"postgresql://ck-an:s3cret@{at}"),
        read_url=make_url(f"postgresql://reader:r3ad@{at}"),
    )
    store = Database("datastore", main.url, read_url=main.read_url)
    known = Database("database", make_url(f"postgresql://ckan_default@{at}"))
    assert roles.missing({"database": known}) == []
    left = roles.missing({"database": main, "datastore": store})
    assert [each.statement for each in left] == [
        'CREATE ROLE "ck-an" LOGIN CREATEDB;', "CREATE ROLE reader LOGIN;",
    ]  # fmt: skip
    assert "does not exist" in left[0].reason and "s3cret" not in repr(left)
    user = os.geteuid()
    assert [roles.make(each) for each in left] == [True, True]
    assert os.geteuid() == user
    made = server.sql(
        "SELECT rolname, rolcreatedb, rolsuper, rolpassword LIKE 'SCRAM-%' FROM"
        " pg_authid WHERE rolname IN ('ck-an', 'reader') ORDER BY 1"
    )
    assert made == [("ck-an", True, False, True), ("reader", False, False, True)]
    assert roles.missing({"database": main, "datastore": store}) == []
    said = server.log.read_text()
    assert "CREATE ROLE" in said and "s3cret" not in said and "r3ad" not in said

    # one that is there is never changed
    server.sql("ALTER ROLE reader NOLOGIN")
    (left,) = roles.missing({"database": main})
    with pytest.raises(Refused, match=r"'reader' is there.*`\\password reader`"):
        roles.make(left)
    # its URL names another server in its options alone
    far = make_url("postgresql://reader@/portal?host=/run/far").set(port=server.port)
    assert not roles.make(replace(left, url=far))
    # nobody's way in: the socket is another server's, or none
    server.sql("DROP ROLE reader")
    (sockets / f".s.PGSQL.{server.port}").unlink()
    assert not roles.make(left)
    server.stop()
    with pytest.raises(ConnectionFailed):
        roles.missing({"database": main})
