"""CKAN's own tests of its commands, run with the plugin."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import ckan.tests.cli
import pytest

from .support.cluster import READER, query
from .support.portal import Portal

_TESTS = Path(ckan.tests.cli.__file__).parent
_TEST_INI = Path(__file__).parents[3] / "test.ini"
#: answers `clean` by "y", where the plugin asks for the site's name
_NOT = "not test_db_clean_clears_search_index"


class _Run:
    """Some files of CKAN's tests, run with a plugin on services of its own."""

    def __init__(
        self, directory: Path, plugin: str, redis: int, files: Iterable[str], where: str
    ):
        directory.mkdir()
        # databases that no other process of the tests has a session in
        self.portal = Portal(directory, f"core{secrets.token_hex(4)}")
        for name in self.portal.names.values():
            query(
                f"CREATE DATABASE {name} OWNER ckan_default TEMPLATE template0 {where}"
            )
        self.portal.ini.write_text(self._settings(plugin, redis))
        clean = {k: v for k, v in os.environ.items() if not k.startswith("CKAN_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider",
             "-W", "ignore", "-c", os.devnull, f"--ckan-ini={self.portal.ini}",
             "-k", _NOT, *(f"{_TESTS}/{name}" for name in files)],
            stdout=subprocess.PIPE, text=True, cwd=directory, env=clean,
        )  # fmt: skip

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.portal.drop()

    def _settings(self, plugin: str, redis: int) -> str:
        kept = ("storage_path", "datastore.write_url", "datastore.read_url")
        options = {f"ckan.{name}": self.portal.options[f"ckan.{name}"] for name in kept}
        options |= {
            "sqlalchemy.url": self.portal.url("database"),
            "ckan.datastore.read_url": self.portal.url(
                "datastore", "datastore_default", READER
            ),
            "solr_url": os.environ["CKAN_SOLR_URL"],
            "ckan.site_id": self.portal.names["database"],
            "ckan.auth.create_unowned_dataset": "true",
            "ckan.plugins": plugin,
        }
        url = urlsplit(os.environ["CKAN_REDIS_URL"])
        options["ckan.redis.url"] = url._replace(path=f"/{redis}").geturl()
        text = _TEST_INI.read_text()
        for option, value in options.items():
            line = f"{option} = {value.replace('%', '%%')}"
            text = re.sub(rf"(?m)^{re.escape(option)} *=.*\n", "", text)
            text = text.replace("[app:main]\n", f"[app:main]\n{line}\n", 1)
        return text

    def result(self) -> tuple[int, set[str]]:
        """How many tests passed, and the others as `file.py::name`."""
        said, _ = self.process.communicate()
        (passed,) = re.findall(r"(\d+) passed", said) or pytest.fail(said[-6000:])
        failed = re.findall(r"(?m)^(?:FAILED|ERROR) \S*?(test_\w+\.py::\S+)", said)
        return int(passed), set(failed)


def test_what_passes_with_a_plugin_of_core_passes_with_ours(
    tmp_path: Path, memory: str
) -> None:
    """With `image_view`, core's own plugin that declares an option, the same ones fail.

    "No undeclared options" fails with every plugin that declares options, for the
    tests unload the plugin and keep its options. Others lack files that CKAN's wheel
    leaves out, or heed what another test of their file left: files and classes are run
    whole.
    """
    files = sorted(file.name for file in _TESTS.glob("test_*.py"))
    halves = files[::2], files[1::2]
    with ExitStack() as stack:
        both = [
            stack.enter_context(
                _Run(tmp_path / f"ours{n}", "dbmanage", 4 + n, half, memory)
            )
            for n, half in enumerate(halves)
        ]
        results = [each.result() for each in both]
    failed = results[0][1] | results[1][1]
    assert results[0][0] + results[1][0] > 100
    # the class, or for want of one the file
    doubtful = {name.rpartition("::")[0] for name in failed}
    with _Run(tmp_path / "core", "image_view", 4, doubtful, memory) as core:
        _, fail_anyhow = core.result()
    assert failed == fail_anyhow
