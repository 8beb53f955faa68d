"""Backups of another secret or another site."""

from __future__ import annotations

from collections.abc import Callable

from ...support.portal import Portal, refused


def test_another_secret_is_told_before_the_switch(portal: Portal) -> None:
    portal.backup()
    portal.write(
        **{
            "SECRET_KEY": "another-secret-77",
            "beaker.session.secret": "another-secret-77",
            "SECRET_KEY_FALLBACKS": "portal-secret-5fd1",
        }
    )
    done = portal.module("restore", "latest", "--yes", "--no-backup")
    warning = done.stderr.index("API tokens in it were made with another secret")
    assert warning < done.stderr.index("switch …")
    assert "another-secret" not in done.stderr


def test_another_site_s_backup_says_what_changes(
    make_portal: Callable[..., Portal],
) -> None:
    one, two = make_portal(), make_portal({"ckan.site_url": "http://two.test"})
    path = one.backup()
    two.write(
        **{"SECRET_KEY": "two-secret-99", "beaker.session.secret": "two-secret-99"}
    )
    said = refused(two, str(path))
    assert "--trust" in said
    done = two.module("restore", str(path), "--trust", "--yes", "--no-backup")
    assert "site URL 'http://portal.test', here 'http://two.test'" in done.stderr
    assert f"will be put into {two.storage}" in done.stderr
    assert two.uploads() == one.uploads()
