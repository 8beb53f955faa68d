"""What is loaded is compared with what the manifest counts."""

from __future__ import annotations

import hashlib
import json

from ckanext.dbmanage.engine.signature import dumped, sign

from ...support.portal import DATASETS, Portal, forge, refused


def test_a_wrong_row_count_is_found_in_the_copy(portal: Portal) -> None:
    """The manifest is signed, the archive is whole, and still they disagree."""
    path = portal.backup()
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["databases"]["database"]["rows"]["public.package"] += 1
    signed = dumped(sign(manifest, portal.options["SECRET_KEY"], "manifest"))
    (path / "manifest.json").write_bytes(signed)

    forge(path)
    (path / "manifest.json").write_bytes(signed)
    sums = (path / "SHA256SUMS").read_text().splitlines()
    own = f"{hashlib.sha256(signed).hexdigest()}  manifest.json"
    sums = [own if each.endswith("  manifest.json") else each for each in sums]
    (path / "SHA256SUMS").write_text("\n".join(sums) + "\n")
    said = refused(portal, "latest")
    assert f"public.package: {DATASETS} rows, the manifest says {DATASETS + 1}" in said
