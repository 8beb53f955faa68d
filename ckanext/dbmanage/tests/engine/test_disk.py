"""What is written is private, whatever the umask."""

from __future__ import annotations

import shutil

from ..support.portal import Portal


def test_rights_whatever_the_umask(portal: Portal) -> None:
    for umask in (0o000, 0o777):
        done = portal.module("backup", umask=umask)
        path = portal.repository / done.stdout.strip()
        for entry in [path, *path.iterdir(), portal.repository, portal.repository / "state",
                      *(portal.repository / "state").iterdir()]:  # fmt: skip
            assert oct(entry.stat().st_mode & 0o777) == (
                "0o700" if entry.is_dir() else "0o600"
            )
        shutil.rmtree(path)
