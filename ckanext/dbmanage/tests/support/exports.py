"""Exports, by this extension and by ckanapi."""

from __future__ import annotations

import json
import os
import subprocess

from . import forked
from .cluster import BIN
from .portal import Portal

KINDS = ("datasets", "organizations", "groups", "users")


def ckanapi(portal: Portal, kind: str, *options: str, **env: str) -> list[bytes]:
    """What ckanapi writes for an anonymous visitor; of users for a sysadmin."""
    user = [] if kind == "users" or "--include-private" in options else ["-u", ""]
    command = [
        BIN / "ckanapi",
        "dump",
        kind,
        "--all",
        "-q",
        "-p",
        "1",
        "-c",
        portal.ini,
    ]
    done = forked.run(
        [*command, *user, *options], stdin=subprocess.DEVNULL,
        env=portal.environment | {"PATH": f"{BIN}:{os.environ['PATH']}"} | env,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return done.stdout.splitlines()


def export(
    portal: Portal, kind: str, *options: str, code: int = 0, **env: str
) -> list[bytes]:
    done = portal.db(
        "export", kind, "--quiet", *options, code=code, text=False, env=env
    )
    return done.stdout.splitlines()


def by_name(lines: list[bytes]) -> dict[str, bytes]:
    return {json.loads(line)["name"]: line for line in lines}


ODD = """
INSERT INTO vocabulary (id, name) VALUES ('voc', 'genre');
INSERT INTO tag (id, name, vocabulary_id) VALUES ('tag-2', 'air quality', 'voc');
INSERT INTO package_tag (id, package_id, tag_id, state)
  SELECT 'x' || i, 'id-' || i, 'tag-2', CASE WHEN i % 2 = 0 THEN 'active' ELSE 'deleted' END
  FROM generate_series(1, 20) i;
INSERT INTO package_relationship (id, subject_package_id, object_package_id, type, state)
  SELECT 'rel-' || i, 'id-' || i, 'id-' || (i + 1), 'depends_on', 'active' FROM generate_series(1, 5) i;
INSERT INTO member (id, group_id, table_id, state, table_name, capacity)
  SELECT 'g-' || i, 'group-1', 'id-' || i, 'active', 'package', 'public' FROM generate_series(1, 9) i;
UPDATE resource SET state = 'deleted' WHERE id IN ('r-3', 'r-4');
UPDATE resource SET url = 'www.example.com/x' WHERE id = 'r-5';
UPDATE package SET license_id = 'cc-by', title = '  spaced ' WHERE id IN ('id-6', 'id-7');
UPDATE package SET license_id = 'nonsense', type = NULL, owner_org = NULL WHERE id = 'id-8';
UPDATE package SET state = 'draft' WHERE id = 'id-9';
UPDATE package SET state = 'deleted' WHERE id = 'id-11';
UPDATE package SET title = NULL, notes = E'ctrl \\x07 \\u2028 "q" \\\\ <b> \U0001f600' WHERE id = 'id-12';
UPDATE package SET metadata_modified = date_trunc('second', metadata_modified) WHERE id = 'id-13';
"""

_IDS = (
    ("user", "id"), ("group", "id"), ("member", "id"), ("member", "group_id"),
    ("member", "table_id"), ("package", "id"), ("package", "owner_org"),
    ("package", "creator_user_id"), ("resource", "id"), ("resource", "package_id"),
    ("package_tag", "package_id"), ("package_relationship", "subject_package_id"),
    ("package_relationship", "object_package_id"),
)  # fmt: skip
_EXTRAS = """
DO $$ BEGIN
  IF EXISTS (SELECT FROM information_schema.columns
             WHERE (table_name, column_name) = ('package', 'extras')) THEN
    UPDATE package SET extras = '{"frequency": "yearly", "b": "\u6771"}';
  ELSE
    INSERT INTO package_extra (id, package_id, key, value, state)
      SELECT 'e-' || id, id, 'frequency', 'yearly', 'active' FROM package;
  END IF;
END $$
"""
#: SQL for records as CKAN itself takes them back: with ids of its own, and no dataset
#: without an organization
AS_CKAN_MAKES = ";".join(
    [
        ODD,
        "SET session_replication_role = replica",
        *(f'UPDATE "{table}" SET {c} = md5({c})::uuid::text' for table, c in _IDS),
        "DELETE FROM package WHERE name = 'dataset-8'",
        _EXTRAS,
    ]
)
#: SQL for a portal without any record
WITHOUT_RECORDS = (
    'TRUNCATE package, "group", tag, member, resource CASCADE;'
    "DELETE FROM \"user\" WHERE name LIKE 'user-%'"
)
