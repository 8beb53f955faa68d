"""The live database is never the workbench, whatever is wrong with the rest."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from ckanext.dbmanage.engine import report
from ckanext.dbmanage.engine.errors import Refused
from ckanext.dbmanage.engine.restore.history import Pair, half_way
from ckanext.dbmanage.operations import context
from ckanext.dbmanage.operations.restore import last_to_undo

from ...support.portal import DATASETS, Portal, refused


def test_without_a_terminal_and_yes_it_refuses(portal: Portal) -> None:
    portal.backup()
    done = portal.module("restore", "latest", code=2)
    assert "--yes" in done.stderr
    done = portal.module("load", "nosuch.dump", code=2)
    assert "--yes" in done.stderr


def test_a_wrong_row_count_is_found_in_the_copy(portal: Portal) -> None:
    """The manifest is signed, the archive is whole, and still they disagree."""
    from ckanext.dbmanage.engine.signature import dumped, sign

    from ...support.portal import forge

    path = portal.backup()
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["databases"]["database"]["rows"]["public.package"] += 1
    signed = dumped(sign(manifest, portal.options["SECRET_KEY"], "manifest"))
    (path / "manifest.json").write_bytes(signed)

    forge(path)
    (path / "manifest.json").write_bytes(signed)
    import hashlib

    sums = (path / "SHA256SUMS").read_text().splitlines()
    sums[-1] = f"{hashlib.sha256(signed).hexdigest()}  manifest.json"
    (path / "SHA256SUMS").write_text("\n".join(sums) + "\n")
    said = refused(portal, "latest")
    assert f"public.package: {DATASETS} rows, the manifest says {DATASETS + 1}" in said


def test_an_undo_asks_when_it_is_known_what_is_the_last(portal: Portal) -> None:
    site, repository = portal.engine()
    page = context.Portal(portal.settings, report.Silent())
    name = portal.names["database"]
    pair = Pair(
        "database", name, "dbm_00000000_scratch", "dbm_00000000_undo", "0" * 32,
        site.id, portal.oids()[0], 1,
    )  # fmt: skip
    repository.record("ended", "switch", pairs=[asdict(pair)], moves=[])
    assert half_way(site, repository) == ["ended"]
    with pytest.raises(Refused, match="nothing to undo"):
        last_to_undo(page)
    assert half_way(site, repository) == []
