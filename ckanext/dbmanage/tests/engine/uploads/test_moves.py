"""Folders of ours beside the uploads: known by their token."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckanext.dbmanage.engine.errors import Refused
from ckanext.dbmanage.engine.uploads.folders import TOKEN
from ckanext.dbmanage.engine.uploads.moves import is_ours, make_folder


def test_a_token_that_was_written_by_half_is_written_anew(tmp_path: Path) -> None:
    folder = tmp_path / ".dbm_00000000_undo"
    folder.mkdir()
    (folder / f".{TOKEN}.0a1b2c3d.partial").write_text("t")
    assert is_ours(make_folder(folder, "t" * 32), "t" * 32)
    assert [path.name for path in folder.iterdir()] == [TOKEN]


def test_a_folder_with_somebody_s_file_is_not_taken(tmp_path: Path) -> None:
    folder = tmp_path / ".dbm_00000000_undo"
    folder.mkdir()
    (folder / f".{TOKEN}.partial").write_text("theirs")
    with pytest.raises(Refused, match="is not ours"):
        make_folder(folder, "t" * 32)
    assert (folder / f".{TOKEN}.partial").read_text() == "theirs"
