"""Roles of a new server: which of a site's are missing, and how they are made.

An existing role is never changed: others may use it. Must not know what is restored.
"""

import os
import pwd
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from psycopg2 import sql
from psycopg2.extensions import encrypt_password
from sqlalchemy.engine import URL

from ..errors import ConnectionFailed, Refused
from .database import Connection, Database, closing, query, quoted

#: where Debian's servers, and most others, have their sockets
_SOCKETS = "/var/run/postgresql"
_LOCAL = (None, "", "localhost", "127.0.0.1", "::1", _SOCKETS)
_SUPERUSER = "postgres"


@dataclass(frozen=True)
class Role:
    """A role of a site that does not get in: `reason` is what the server says.

    `of` is a database that it is for, `owns` that it is to make databases.
    """

    name: str
    of: Database
    owns: bool
    url: URL = field(repr=False)
    reason: str = ""

    @property
    def statement(self) -> str:
        """What makes it, without its password."""
        return f"CREATE ROLE {quoted(self.name)} LOGIN{' CREATEDB' * self.owns};"


def missing(databases: Mapping[str, Database]) -> list[Role]:
    """The roles that do not get in, each once. Raises ConnectionFailed.

    That is for a server that does not answer.
    """
    found: dict[tuple[str, str], Role] = {}
    for database in databases.values():
        for url in filter(None, (database.url, database.read_url)):
            owns = url is database.url
            role = Role(database.role_of(url), database, owns, url)
            key = (role.name, replace(database, url=url).server)
            if key in found:
                continue
            try:
                database.maintenance(url).close()
            except ConnectionFailed as error:
                if error.down or not error.reason:
                    raise
                found[key] = replace(role, reason=error.reason)
    return list(found.values())


def make(role: Role, admin: URL | None = None) -> bool:
    """Makes a role as `admin`, else as the superuser by the local socket.

    False where neither is a way in. Its password never leaves this process as it is.
    Raises Refused for a role that is there, ConnectionFailed, psycopg2.Error.
    """
    with _mighty(role, admin) as connection:
        if connection is None:
            return False
        there = "SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = %s"
        if query(connection, there, role.name):
            raise Refused(
                f"the role {role.name!r} is there, and does not get in with the "
                f"password of {role.of.option}: {role.reason}. Set that password in "
                f"psql by `\\password {quoted(role.name)}`"
            )
        made = sql.SQL("CREATE ROLE {} LOGIN {}").format(
            sql.Identifier(role.name), sql.SQL("CREATEDB" if role.owns else "")
        )
        if role.url.password:
            secret = encrypt_password(
                str(role.url.password), role.name, connection, "scram-sha-256"
            )
            made += sql.SQL(" PASSWORD {}").format(sql.Literal(secret))
        query(connection, made)
    return True


@contextmanager
def _mighty(role: Role, admin: URL | None) -> Iterator[Connection | None]:
    """A connection of somebody who may make roles, None where there is no way in."""
    if admin is not None:
        with closing(replace(role.of, admin_url=admin).maintenance()) as connection:
            yield connection
        return
    # a URL may name its server in its options alone
    known = replace(role.of, url=role.url, admin_url=None).variables()
    connection, port = None, str(known.get("PGPORT", 5432))
    near = known.get("PGHOST") in _LOCAL and port.isdecimal()
    if near and Path(_SOCKETS, f".s.PGSQL.{port}").exists():
        own = URL.create(
            "postgresql", _SUPERUSER, port=int(port), query={"host": _SOCKETS}
        )
        try:
            with _as_superuser():
                connection = replace(role.of, admin_url=own).maintenance()
        except ConnectionFailed:
            pass
    try:
        yield connection
    finally:
        if connection is not None:
            connection.close()


@contextmanager
def _as_superuser() -> Iterator[None]:
    """The server looks whose process it is; root may be anybody."""
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(pwd.getpwnam(_SUPERUSER).pw_uid)
        yield
    except KeyError:  # no such user here
        raise ConnectionFailed(f"there is no user {_SUPERUSER}") from None
    finally:
        os.seteuid(user)
