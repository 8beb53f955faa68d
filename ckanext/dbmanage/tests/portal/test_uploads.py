"""Only names that CKAN itself could have written are uploads that can be missing."""

from __future__ import annotations

from contextlib import closing

from ckanext.dbmanage.doctor import portal_checks
from ckanext.dbmanage.engine.report import Silent
from ckanext.dbmanage.engine.restore import proof
from ckanext.dbmanage.operations.backup import take_backup
from ckanext.dbmanage.operations.context import Portal as Opened
from ckanext.dbmanage.operations.context import open_site

from ..support.cluster import superuser
from ..support.portal import UPLOADS, Portal

FORGED = "x\n\x1b[2JDBMANAGE OK - 99 checks"


def test_a_name_of_a_user_s_own_breaks_no_proof_and_forges_no_line(
    portal: Portal,
) -> None:
    for number, name in enumerate(["a//b", FORGED, "../../etc/passwd", "..", "a b"], 1):
        quoted = name.replace("'", "''")
        portal.sql(
            f"UPDATE \"user\" SET image_url = '{quoted}' WHERE id = 'user-{number}'"
        )
    portal.sql("UPDATE \"group\" SET image_url = 'gone.png' WHERE id = 'group-1'")
    asked = Opened(portal.settings, Silent())
    site, repository = open_site(asked)
    taken = take_backup(asked)
    assert taken.files["missing"] == 1, taken.files["examples"]
    # as the proof does it, in the live database's own session
    record = {"problems": []}
    told: list[str] = []
    with closing(site.databases["database"].connect()) as connection:
        proof._uploads(site, taken, connection, record, told.append)
        connection.rollback()
    assert record["problems"] == []
    assert record["uploads"] == {"named": UPLOADS + 2, "missing_before": 1}
    assert told == [
        "5 names in the database are none that CKAN gives to an upload, such as "
        "'storage/uploads/user/..': nothing is looked for by them"
    ]
    # of the doctor's sentences none holds a name that CKAN did not give
    said = list(portal_checks.upload_files(asked, site, repository))
    assert [state for state, _ in said] == ["problem"]
    assert "1 uploads that the database names" in said[0][1]
    assert "gone.png" in said[0][1] and "\n" not in said[0][1] + taken.id


def test_the_names_that_ckan_gives(portal: Portal) -> None:
    named = portal.site().named_uploads["group"]
    with closing(superuser(portal.names["database"])) as connection:
        for name, own in (
            ("2026-11-26-114130.123456logo.png", True),
            ("20261126-1141-Logo_1.JPEG", True),
            ("a" * 141, False),
            ("a/b", False),
            ("a\n", False),
            (".", False),
            ("", None),
            ("https://example.com/a.png", None),
            ("/absolute", None),
        ):
            with connection.cursor() as cursor:
                cursor.execute('UPDATE "group" SET image_url = %s', [name])
                cursor.execute(named)
                found = set(cursor.fetchall())
            path = f"storage/uploads/group/{name}"
            assert found == (set() if own is None else {(path, own)})
