"""What is asked before something is replaced: which site, how old, how much is lost."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ..support.asked import answered
from ..support.forked import CKAN
from ..support.portal import DATASETS, Portal

TITLE = "Open Data of Riverland"


def test_a_restore_asks_for_the_name_of_the_site(portal: Portal) -> None:
    portal.write(**{"ckan.site_title": TITLE, "ckan.site_url": "https://data.test/x"})
    portal.backup()
    before, live = portal.state(), portal.oids()
    portal.sql("UPDATE package SET metadata_modified = now() WHERE id = 'id-7'")
    portal.sql("UPDATE package SET state = 'deleted' WHERE id = 'id-8'")
    command = [*portal.module_command, "restore", "latest", "--no-backup"]
    # typed before it stood there, the right name is no answer
    code, said = answered(portal, command, "yes", early=f"{TITLE}\n")
    assert code == 1 and portal.oids() == live
    assert "that is not the site's name: nothing was touched" in said
    question = next(line for line in said.splitlines() if line.startswith("Replace"))
    assert question.startswith("Replace data.test/x with the backup of ")
    assert question.endswith(")? 2 datasets changed since then.")
    code, said = answered(portal, [*command, "--only", "files"], "")
    assert code == 1 and "Replace the uploads of data.test/x with" in said
    code, said = answered(portal, command, TITLE.upper())
    assert code == 0 and portal.state() == before
    # and back, by its name too
    at, undo = r"\d+ \w+ \d\d:\d\d UTC \(.*\)", [*portal.module_command, "undo"]
    code, said = answered(portal, undo, TITLE)
    assert code == 0 and "undone: database" in said
    assert re.search(
        rf"Undo the restore \(backup \w+\) of data.test/x, made {at}: back to the state "
        r"before it\? 0 datasets changed since then\.", said
    ), said  # fmt: skip
    portal.sql("UPDATE package SET metadata_modified = now() + interval '1 minute'")
    code, said = answered(portal, undo, TITLE)
    assert code == 0 and "redone: database" in said and portal.state() == before
    assert re.search(
        rf"Redo the restore \(backup \w+\) of data.test/x, which was undone {at}\? "
        rf"{DATASETS} datasets changed since then\.", said
    ), said  # fmt: skip


def test_a_restore_asks_where_nobody_can_count(portal: Portal) -> None:
    """Half of a database is what somebody wants to replace."""
    portal.backup("--only", "database")
    portal.sql("ALTER TABLE package DROP COLUMN metadata_modified CASCADE")
    command = [*portal.module_command, "restore", "latest", "--no-backup"]
    code, said = answered(portal, command, "CKAN")
    assert code == 0 and "what would change cannot be counted" in said
    assert "ago)?\n" in said.replace("just now", "0 ago")
    assert portal.sql("SELECT count(metadata_modified) FROM package") == [(DATASETS,)]


def test_a_file_is_replaced_by_who_says_so(portal: Portal, tmp_path: Path) -> None:
    file = tmp_path / "portal.dump"
    portal.module("dump", str(file))
    file.write_text("the only copy")
    refused = portal.module("dump", str(file), code=2).stderr
    assert f"{file} is there already" in refused and "say --yes" in refused
    command = [*portal.module_command, "dump", str(file)]
    code, said = answered(portal, command, "n", early="y\n")
    assert code == 1 and f"Replace {file} (13 bytes, of " in said
    assert file.read_text() == "the only copy"
    code, said = answered(portal, command, "y")
    assert code == 0 and file.read_bytes()[:5] == b"PGDMP"
    portal.module("dump", str(file), "--yes")
    portal.module("dump", "/dev/null")
    # an export of last night is what a timer replaces; anything else it leaves alone
    lines = tmp_path / "users.jsonl.gz"
    for _ in range(2):
        portal.db("export", "users", "-O", str(lines))
    assert str(file) in portal.db("export", "users", "-O", str(file), code=2).stderr
    portal.db("export", "users", "-O", str(file), "--yes", "-q")
    assert json.loads(file.read_text().splitlines()[0])["name"]


def test_clean_says_how_much_goes(portal: Portal) -> None:
    command = [CKAN, "-c", str(portal.ini), "db", "clean"]
    code, said = answered(portal, command, "no")
    assert code == 1 and "nothing was touched" in said
    name = portal.names["database"]
    asked = f"Remove all of portal.test from the database '{name}': {DATASETS} datasets"
    assert asked in said
