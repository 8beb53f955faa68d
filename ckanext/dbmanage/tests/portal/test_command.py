"""Commands are shown as they are typed on this machine."""

import sys
import types
from pathlib import Path

import pytest

from ckanext.dbmanage.portal import command
from ckanext.dbmanage.portal.command import on_server, pasted, typed
from ckanext.dbmanage.portal.config import Options

BIN = Path(sys.prefix, "bin")
CKAN = str(BIN / "ckan")


def _typed(monkeypatch: pytest.MonkeyPatch, *words: str, **variables: str) -> str:
    for name in ("CKAN_INI", "SUDO_COMMAND"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"PATH": "/usr/bin"} | variables).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", [CKAN, *words])
    return typed()


def test_a_terminal_is_told_what_was_typed_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = _typed(monkeypatch, "-c", "my site.ini", "db", "undo")
    assert said == f"{CKAN} -c 'my site.ini'"
    assert _typed(monkeypatch, "--config=a.ini", "db", "undo") == f"{CKAN} -c a.ini"


def test_what_the_shell_knows_is_not_said_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = f"{BIN}:/usr/bin"
    assert _typed(monkeypatch, "db", "undo", PATH=path) == "ckan"
    words = ("-c", "/etc/a.ini", "db", "undo")
    assert _typed(monkeypatch, *words, PATH=path, CKAN_INI="/etc/a.ini") == "ckan"
    assert _typed(monkeypatch, *words, PATH=path, CKAN_INI="/etc/b.ini") == (
        "ckan -c /etc/a.ini"
    )


def test_who_came_by_sudo_goes_by_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_user", lambda: "www-data")
    own = f"{CKAN} -c a.ini db backup"
    said = _typed(monkeypatch, "-c", "a.ini", "db", "backup", SUDO_COMMAND=own)
    assert said == f"sudo -u www-data {CKAN} -c a.ini"
    # within a shell that sudo opened one is that user already
    said = _typed(monkeypatch, "-c", "a.ini", "db", "backup", SUDO_COMMAND="/bin/bash")
    assert said == f"{CKAN} -c a.ini"


def test_a_page_tells_user_path_and_site(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_user", lambda: "www-data")
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    options = Options({"__file__": "/etc/ckan/ckan.ini"})
    assert on_server(options) == f"sudo -u www-data {CKAN} -c /etc/ckan/ckan.ini"
    monkeypatch.setattr("shutil.which", lambda _: None)  # as in a container
    assert on_server(options) == f"{CKAN} -c /etc/ckan/ckan.ini"


def test_only_commands_in_a_message_are_written_so() -> None:
    said = (
        "a ckan db: `ckan db undo` or `ckan search-index rebuild`, not `ckan sysadmin`"
    )
    assert pasted(said, r"\1 -c x") == (
        r"a ckan db: `\1 -c x db undo` or `\1 -c x search-index rebuild`, not "
        "`ckan sysadmin`"
    )


def test_what_was_typed_without_ckan_goes_on_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert command.typed_module() == ""
    begun = types.SimpleNamespace(__package__="ckanext.dbmanage")
    monkeypatch.setitem(sys.modules, "__main__", begun)  # type: ignore[arg-type]
    _typed(monkeypatch, "-c", "a.ini", "verify", PATH="/usr/bin")
    module = command.typed_module()
    assert module == f"{sys.executable} -m ckanext.dbmanage -c a.ini"
    said = "`ckan db undo ID`, `ckan db clean` or\n  ckan db load FILE"
    assert pasted(said, "ckan", module, ("undo", "load")) == (
        f"`{module} undo ID`, `ckan db clean` or\n  {module} load FILE"
    )
