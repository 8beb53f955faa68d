"""What holds for any manifest: signed as it stands, or refused; garbage is told of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ckanext.dbmanage.cli.tables import backup_facts, backup_table
from ckanext.dbmanage.engine.backup.manifest import well_formed
from ckanext.dbmanage.engine.backup.verify import changed_files
from ckanext.dbmanage.engine.layout import FORMAT
from ckanext.dbmanage.engine.printable import printable
from ckanext.dbmanage.engine.repository.backup import Backup
from ckanext.dbmanage.engine.repository.retention import decide
from ckanext.dbmanage.engine.signature import dumped, read_json, sign, signed_by
from ckanext.dbmanage.engine.site import Site

from ...support.anything import JSON, TEXT, changed, scratch
from ...support.shelf import NONE, NOON, SECRET, Shelf

_DOCUMENTS = st.dictionaries(TEXT, JSON, max_size=5)


@given(_DOCUMENTS)
def test_a_document_is_written_in_one_way_and_read_as_it_was(
    document: dict[str, Any],
) -> None:
    written = dumped(document)
    assert written == json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"
    again = json.loads(written)
    assert dumped(again) == written


@given(_DOCUMENTS, TEXT, TEXT, TEXT)
def test_only_the_secret_and_the_purpose_of_a_signature_are_taken(
    document: dict[str, Any], one: str, other: str, purpose: str
) -> None:
    secrets = [text.encode("utf-8", "replace").decode() for text in (one, other)]
    purpose = purpose.encode("utf-8", "replace").decode()
    signed = json.loads(dumped(sign(document, secrets[0] or "a", purpose)))
    known = (secrets[0] or "a",)
    assert signed_by(signed, known, purpose)
    assert signed_by(signed, ("", "x", *known), purpose)
    assert not signed_by(signed, known, purpose + "s")
    assert not signed_by(signed | {"more": 1}, known, purpose) or "more" in document
    # HMAC takes a key with zero bytes behind it for the same
    if known[0].rstrip("\0") != secrets[1].rstrip("\0"):
        assert not signed_by(signed, (secrets[1],), purpose)


def shelf(directory: str, *files: tuple[str, Any]) -> tuple[Shelf, Backup]:
    """A repository with a backup, and something else in the place of some files."""
    made = Shelf(Path(directory) / "backups")
    name = made.add(NOON, uploads=[b"an upload"])
    for file, content in files:
        path = made.path / file.replace("ID", name)
        path.write_bytes(content if isinstance(content, bytes) else dumped(content))
    return made, made.repository.find(name)


def site(made: Shelf) -> Site:
    return Site("test", "http://x.test", str(made.path), {}, (SECRET,))


@given(st.data())
def test_a_manifest_in_which_a_byte_is_another_is_refused(data: st.DataObject) -> None:
    with scratch() as directory:
        made, backup = shelf(directory)
        whole = (backup.path / "manifest.json").read_bytes()
        other = data.draw(changed(whole))
        (backup.path / "manifest.json").write_bytes(other)
        found = made.repository.find(backup.id)
        problems = changed_files(found, site(made), lambda *_: None)
        assert (problems == ["SHA256SUMS: is missing"]) == (other == whole)
        if found.signed:  # by a space, or an order: it says the same
            assert found.manifest == backup.manifest


#: what a manifest may say anywhere, if nobody vouches for it
_FIELDS = {
    "id": st.just(f"{NOON:%Y%m%dT%H%M%SZ}") | JSON,
    "created": st.just("2020-11-30T12:00:00Z") | JSON,
    "contents": _DOCUMENTS | JSON,
    "databases": st.integers() | st.dictionaries(
        st.sampled_from(("database", "datastore")) | TEXT,
        JSON | st.fixed_dictionaries({"dump": JSON, "rows": JSON, "migrations": JSON}),
        max_size=2,
    ) | JSON,
    "files": st.dictionaries(
        st.sampled_from((
            "included", "bytes", "folders", "linked", "behind", "left_out", "examples",
            "count", "missing", "refused",
        )),
        JSON | st.just(True),
    ) | JSON,
    "hmac": JSON,
    "reason": JSON, "note": JSON, "seconds": JSON, "versions": JSON, "site": JSON,
}  # fmt: skip
_OURS = st.fixed_dictionaries({"format": st.just(FORMAT)}, optional=_FIELDS)
_MANIFESTS = _OURS | _OURS.map(lambda fields: fields | {"format": "2"}) | _DOCUMENTS


@given(
    _MANIFESTS | st.binary(max_size=99), JSON | st.binary(max_size=99), st.booleans()
)
def test_whatever_stands_in_a_backup_is_told_of_and_never_fails(
    manifest: Any, state: Any, own: bool
) -> None:
    """Listed, shown, judged by the rules and verified; signed by us it is not."""
    if isinstance(state, dict) and own:
        state = sign(state | {"id": f"{NOON:%Y%m%dT%H%M%SZ}"}, "other", "state")
    if not isinstance(state, (dict, bytes)):
        state = json.dumps(state).encode()
    if not isinstance(manifest, bytes):
        manifest = dumped(manifest)
    with scratch() as directory:
        files = ("ID/manifest.json", manifest), ("state/ID.json", state)
        made, backup = shelf(directory, *files)
        assert not backup.signed
        about = backup.describe()
        json.dumps(about)
        # a line is one: what no terminal may obey is taken out where all is printed
        row = backup_table([about | {"where": ["here"]}])
        assert len(row.split("\n")) == 2 and about["id"] in row
        facts = printable(backup_facts(backup, about)).split("\n")
        assert [line for line in facts if line.startswith("id ")] == facts[:1]
        (decision,) = decide(made.repository.backups(), NONE)
        assert not decision.forget
        assert changed_files(backup, site(made), lambda *_: None)
        assert not well_formed(read_json(backup.path / "manifest.json") or {}) or own
