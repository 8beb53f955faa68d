"""A configuration file that came from elsewhere is looked at, and not run."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckanext.dbmanage.engine.errors import Refused
from ckanext.dbmanage.portal.ini import differing, loaded, untrusted, with_repository

from ..support.portal import LOGGING

_HOSTILE = """[app:main]
use = egg:ckan
SECRET_KEY = 50%%
ckan.storage_path = %(here)s/storage
""" + LOGGING.replace("sys.stderr", "open('MARK', 'w')")


def test_nothing_in_it_is_run(tmp_path: Path) -> None:
    text = _HOSTILE.replace("MARK", str(tmp_path / "run"))
    found = untrusted(text, tmp_path / "ckan.ini")
    assert found["SECRET_KEY"] == "50%"
    assert found["ckan.storage_path"] == f"{tmp_path}/storage"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "text",
    ["secret-5fd1", "[app:main]\nsecret-5fd1\n", "[app:main]\na = %(secret-5fd1)s\n",
     "[app:main]\nz9 = secret-5fd1\n" + "".join(
         f"z{n} = {f'%(z{n + 1})s' * 99}\n" for n in range(9)),
     "[other]\na = secret-5fd1\n", "[app:main]\nuse = config:/secret-5fd1\n"],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(Refused) as told:
        untrusted(text, Path("/ckan.ini"))
    assert "secret-5fd1" not in str(told.value)


def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CKAN_SQLALCHEMY_URL", "postgresql://a:50%25@b/c")
    found = untrusted("[app:main]\nsqlalchemy.url = x\n", Path("/ckan.ini"))
    assert found["sqlalchemy.url"] == "postgresql://a:50%25@b/c"


def test_what_differs_is_told_without_secrets() -> None:
    here = "[app:main]\nSECRET_KEY = one\nckan.site_url = http://a\nnew = 1\nsame = 2\n"
    there = (
        "[app:main]\nSECRET_KEY = two\nckan.site_url = http://b\nsmtp.password = three\n"
        "same = 2\nsolr_url = http://solr:four@solr/ckan\n"
    )
    told = list(differing(here, there, Path("/ckan.ini")))
    assert told == [
        "SECRET_KEY has another value",
        "ckan.site_url is http://a here, and was http://b",
        "new is set here, and was not set there",
        "smtp.password is not set here, and was set there",
        "solr_url is not set here, and was set there",
    ]
    empty = here.replace("http://a", "")
    (told,) = differing(empty, here, Path("/ckan.ini"))
    assert told == "ckan.site_url is empty here, and was http://a"
    (told,) = differing(there, there.replace("@solr", "@other"), Path("/ckan.ini"))
    assert told == "solr_url is http://…@solr/ckan here, and was http://…@other/ckan"


@pytest.mark.parametrize("line", ["", "ckanext.dbmanage.repository = /old\n"])
def test_the_directory_of_the_backups_is_written_in(line: str) -> None:
    text = f"[DEFAULT]\na = 1\n[app:main]\n{line}b = 2\n[other]\nc = 3\n"
    new = with_repository(text, "/new 50%")
    found = untrusted(new, Path("/ckan.ini"))
    assert found["ckanext.dbmanage.repository"] == "/new 50%" and found["b"] == "2"
    assert "/old" not in new and "\nc = 3\n" in new


@pytest.mark.parametrize(
    "text",
    [
        "no section",
        "[app:main",
        "[app:main]\nsqlalchemy.url = postgresql://ckan:pass%word@h/d\n",
        "[app:main]\na = b\n[loggers]\n[handlers]\n[formatters]\n",
    ],
)
def test_what_cannot_be_read_is_refused_without_its_words(
    tmp_path: Path, text: str
) -> None:
    ini = tmp_path / "ckan.ini"
    ini.write_text(text)
    with pytest.raises(Refused, match=f"{ini} cannot be read") as refused:
        loaded(str(ini))
    assert "word" not in str(refused.value)
