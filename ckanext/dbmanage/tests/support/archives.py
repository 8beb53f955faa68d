"""Archives of pg_dump, made, changed and loaded."""

from __future__ import annotations

from pathlib import Path

import psycopg2

from ckanext.dbmanage.engine.archive import contents, feeding, lint
from ckanext.dbmanage.engine.archive.contents import contents_of
from ckanext.dbmanage.engine.archive.file import File
from ckanext.dbmanage.engine.restore.copies import choose
from ckanext.dbmanage.engine.restore.faithful import left_out, plan

from .cluster import PASSWORD, PG_BIN, SUPERUSER, client

OWN = f"postgresql://ckan_default:{PASSWORD}@127.0.0.1:{SUPERUSER.port}"


PUBLIC = "GRANT ALL ON SCHEMA public TO ckan_default"


def run(name: str, statement: str) -> None:
    with psycopg2.connect(f"{OWN}/{name}") as connection, connection.cursor() as cursor:
        connection.set_client_encoding("UTF8")
        cursor.execute(statement)
    connection.close()


def dump(name: str, file: Path, *options: str) -> Path:
    client(PG_BIN / "pg_dump", f"{OWN}/{name}", "-Fc", "-Z0", "-f", file, *options)
    return file


def load(file: Path, name: str, scan: bool = True) -> None:
    """What a restore does with an archive that nobody signed."""
    found = contents_of(File(file))
    if scan:
        lint.refuse_odd(found, file.name)
    connection = psycopg2.connect(f"{OWN}/{name}")
    try:
        tools = contents.tools(File(file), connection, str(PG_BIN))
        listed = file.with_suffix(".list")
        role = connection.info.user
        left = left_out(plan(found, connection, role), found, connection)
        chosen = choose(found, connection, left)
        connection.rollback()
        listed.write_text("\n".join(chosen) + "\n")
        arguments = ["-O", "-e", "-L", str(listed), "-f-", str(file)]
        feeding.load(connection, [tools.path("pg_restore"), *arguments], file.name)
    finally:
        connection.close()


def number(value: int) -> bytes:
    return b"\0" + value.to_bytes(4, "little")
