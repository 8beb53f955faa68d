"""A repository that a web server hands out is refused."""

from __future__ import annotations

from pathlib import Path

from ..support.portal import Portal


def test_a_served_repository_is_refused(portal: Portal, tmp_path: Path) -> None:
    public = tmp_path / "public"
    public.mkdir()
    link = tmp_path / "link"
    link.symlink_to(portal.storage / "storage")
    for place in (
        portal.storage / "storage" / "uploads" / "backups",
        portal.storage / "resources" / "backups",
        public / "backups",
        link / "x",
    ):
        portal.write(
            **{
                "ckanext.dbmanage.repository": str(place),
                "extra_public_paths": str(public),
            }
        )
        done = portal.module("backup", code=1)
        assert "serves to visitors" in done.stderr
        assert not place.exists()
