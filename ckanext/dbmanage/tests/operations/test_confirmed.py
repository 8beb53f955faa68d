"""Who is asked holds nothing up; and what was confirmed is what is done."""

from __future__ import annotations

import pytest

from ckanext.dbmanage.engine.errors import Refused
from ckanext.dbmanage.engine.report import Silent
from ckanext.dbmanage.operations import context
from ckanext.dbmanage.operations.backup import take_backup
from ckanext.dbmanage.operations.clean import look_at_clean, run_clean
from ckanext.dbmanage.operations.dump import run_dump
from ckanext.dbmanage.operations.restore import (
    last_to_undo,
    look_at_restore,
    run_restore,
    run_undo,
)

from ..support.asked import answered
from ..support.portal import Portal


@pytest.fixture
def asked(portal: Portal) -> context.Portal:
    """The portal, as an operation in this process works on it."""
    return context.Portal(portal.settings, Silent())


def test_a_question_that_waits_lets_a_backup_be_taken(
    portal: Portal, asked: context.Portal
) -> None:
    before, shown = portal.state(), take_backup(asked)
    portal.damage()
    nightly = []
    command = [*portal.module_command, "restore", "latest", "--no-backup"]
    code, said = answered(
        portal, command, "CKAN", first=lambda: nightly.append(take_backup(asked))
    )
    assert "lost" in said and f"backup {shown.id} and what is live" in said
    # what was shown as the latest, not what is the latest now
    assert code == 0 and f"from backup {shown.id}" in said
    assert portal.state() == before and nightly[0].id > shown.id
    # an undo takes back what was confirmed, and nothing else
    live, (last, _) = portal.oids(), last_to_undo(asked)
    assert last["source"] == f"backup {shown.id}"
    with pytest.raises(Refused, match="another switch was made"):
        run_undo(asked, "00000000")
    assert portal.oids() == live


def test_a_file_that_is_another_after_the_answer(
    portal: Portal, asked: context.Portal
) -> None:
    live = portal.oids()
    file = str(portal.directory / "portal.dump")
    run_dump(asked, "database", file)
    confirmed = look_at_restore(asked, file, ("database",), trust=True)
    portal.sql("UPDATE package SET title = 'Another' WHERE name = 'dataset-1'")
    run_dump(asked, "database", file)
    with pytest.raises(Refused, match=r"portal.dump is not the same any more"):
        run_restore(asked, file, ("database",), trust=True, confirmed=confirmed)
    assert portal.oids() == live


def test_another_kind_of_loss_after_the_answer(
    portal: Portal, asked: context.Portal
) -> None:
    name = take_backup(asked, ("database",)).id
    portal.sql("UPDATE package SET metadata_modified = now() WHERE name = 'dataset-1'")
    confirmed, live = look_at_restore(asked, name, (), trust=False), portal.oids()
    assert confirmed.losses == {"datasets"}
    # more of what was confirmed is what was confirmed
    portal.sql("UPDATE package SET metadata_modified = now() WHERE name = 'dataset-2'")
    confirmed.refuse_other(look_at_restore(asked, name, (), trust=False))
    portal.sql(
        "INSERT INTO \"user\" (id, name, created, state) VALUES ('n', 'n', now(), 'active')"
    )
    with pytest.raises(Refused, match="it would lose or change users too"):
        run_restore(asked, name, confirmed=confirmed)
    assert portal.oids() == live


def test_what_would_be_emptied_is_what_was_confirmed(
    portal: Portal, asked: context.Portal
) -> None:
    _, confirmed = look_at_clean(asked)
    portal.sql("CREATE VIEW titles AS SELECT title FROM package")
    with pytest.raises(Refused, match="view public.titles would go too"):
        run_clean(asked, no_backup=True, confirmed=confirmed)
    assert portal.sql("SELECT count(*) FROM titles") == [(40,)]
    assert not portal.backups()
