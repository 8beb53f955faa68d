"""The page of the public dumps: what a visitor sees, with whatever is on the disk."""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ckanext.dbmanage.records import published

from ..support.portal import Portal
from ..support.web import Web

DOCS = Path(__file__).parents[4] / "docs"
CONTENT = b'{"name": "a"}\n'
OPTIONS = {
    "ckanext.dbmanage.public_contact": "open@example.org",
    "ckan.site_url": "https://data.example.org",
}


class Page(HTMLParser):
    """A page's words as read, its elements, and the texts of its command boxes."""

    def __init__(self, body: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.boxes: dict[str, str] = {}
        self._said: list[str] = []
        self._box = ""
        self.feed(body)
        self.words = " ".join("".join(self._said).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag == "pre":
            self._box = self.elements[-1][1]["id"]
        if tag in ("td", "th", "small", "p", "li", "button", "a", "h1", "h2", "h3"):
            self._said.append(" ")

    def handle_endtag(self, tag: str) -> None:
        self._box = "" if tag == "pre" else self._box

    def handle_data(self, data: str) -> None:
        self._said.append(data)
        if self._box:
            self.boxes[self._box] = self.boxes.get(self._box, "") + data

    def all(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        wanted = attributes.items()
        return [a for t, a in self.elements if t == tag and wanted <= a.items()]

    @property
    def links(self) -> list[str]:
        return [each["href"] for each in self.all("a") if "href" in each]


def main(body: str) -> Page:
    """The page's own part, without the theme around it."""
    (own,) = re.findall(r"(?s)<main.*</main>", body)
    return Page(own)


def moved_to(web: Web, path: str) -> str:
    """Where a redirect goes; the Werkzeug of CKAN 2.10 adds the host."""
    answer = web.ask(path)
    assert answer.status == 308
    return answer.headers["Location"].removeprefix(f"http://127.0.0.1:{web.port}")


def publish(portal: Portal, days: float = 0, failed: int = 0, **about: Any) -> None:
    """Publishes small files, as `ckan db publish` does."""
    directory = portal.storage / "dbmanage" / "public"
    files = []
    moment = datetime.now(timezone.utc) - timedelta(days=days)
    with published.writing(directory) as upcoming:
        for name in published.NAMES:
            content = CONTENT + name.encode()
            (upcoming / name).write_bytes(content)
            files.append(
                published.File(
                    name=name,
                    kind=name.partition(".")[0],
                    rows=1262,
                    failed=failed if name.startswith("datasets") else 0,
                    bytes=len(content),
                    uncompressed=31_412_345,
                    sha256=hashlib.sha256(content).hexdigest(),
                    modified="2026-11-12T03:21:40Z",
                )
            )
        document = {
            "title": "T",
            "url": "https://data.example.org/dump/",
            "snapshot": moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "published": "2026-11-12T03:21:40Z",
            "licence": {"id": "cc-zero", "title": "CC0", "url": "https://cc.test/0"},
        }
        published.commit(directory, files, document | about)


def rewrite(portal: Portal, **about: Any) -> None:
    """Changes the list by hand, as nobody should."""
    index = portal.storage / "dbmanage" / "public" / "index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | about))


@pytest.mark.smoke
def test_what_a_visitor_sees(
    make_portal: Callable[..., Portal], serve: Callable[[Portal], Web]
) -> None:
    portal = make_portal(OPTIONS)
    web = serve(portal)
    page = main(web.ask("/dump/").body)
    assert "The first dump is not made yet." in page.words
    assert not page.all("table") and not page.boxes and len(page.all("h1")) == 1
    assert 'rel="alternate"' not in web.ask("/dump/").body

    publish(portal)
    answer = web.ask("/dump/")
    page = main(answer.body)
    assert answer.status == 200 and "not made yet" not in page.words
    assert not page.all("div", role="status") and "could not be read" not in page.words
    rows = page.words.partition("sha256")[2].partition("For programs")[0]
    for title in ("Datasets", "Organizations", "Groups"):
        assert re.search(rf"{title} \D* 1,262 31\.4\sMB unpacked", rows), rows
    for name in published.NAMES:
        sum = hashlib.sha256(CONTENT + name.encode()).hexdigest()
        assert f"/dump/{name}" in page.links and name in rows
        (shown,) = [a for a in page.all("code") if a.get("title") == sum]
        assert page.all("button", **{"data-dbm-copy": shown["id"]})
        assert f"Copy sha256 of {name}" in rows and sum in rows
    for name in (*published.NAMES, "index.json", "SHA256SUMS", "feed.atom"):
        assert f"/dump/{name}" in page.links
        assert web.ask(f"/dump/{name}").status == 200
    # without JavaScript a button to copy would do nothing
    assert all("hidden" in button for button in page.all("button"))
    assert "https://cc.test/0" in page.links and "license_id" in page.words
    assert "mailto:open@example.org" in page.links
    assert "Sorted by name" in page.words and "night" not in page.words

    whole = Page(answer.body)
    kinds = {a["type"]: a["href"] for a in whole.all("link", rel="alternate")}
    assert kinds["application/json"] == "/dump/index.json"
    assert kinds["application/atom+xml"] == "/dump/feed.atom"
    assert "<title>Catalogue dumps" in answer.body
    sheets = [a["href"] for a in whole.all("link") if "dbmanage" in a["href"]]
    scripts = [a["src"] for a in whole.all("script") if "dbmanage" in a.get("src", "")]
    assert any(".dbm-table" in web.ask(sheet).body for sheet in sheets)
    assert any("data-dbm-copy" in web.ask(script).body for script in scripts)

    head = web.ask("/dump/", "HEAD")
    assert (head.status, head.body) == (200, "")
    assert web.ask("/dump/", "POST").status in (400, 405)
    for prefix in ("", "/de"):
        assert moved_to(web, f"{prefix}/dump") == f"{prefix}/dump/"


def test_in_another_language(portal: Portal, serve: Callable[[Portal], Web]) -> None:
    web = serve(portal)
    publish(portal, days=3, failed=1)
    answer = web.ask("/de/dump/")
    page = main(answer.body)
    assert "1.262" in page.words and re.search(r"31,4\sMB", page.words)
    assert "vor 3 Tagen" in page.words and "UTC" in page.words
    assert "1 weiterer Eintrag konnte nicht gelesen werden und fehlt" in page.words
    # the files have one address only, the page one in each language
    assert [link for link in page.links if link.startswith("/")] == [
        link for link in page.links if link.startswith("/dump/")
    ]
    assert 'class="active"><a href="/de/dump/">' in answer.body
    answer = web.ask("/ar/dump/")
    assert Page(answer.body).all("html", dir="rtl")
    # names, sums and commands are read from the left in any language
    page = main(answer.body)
    assert all(a.get("dir") == "ltr" for a in page.all("pre"))
    assert all(a.get("dir") == "ltr" for a in page.all("code") if "id" in a)


def test_below_a_root_path(
    make_portal: Callable[..., Portal], serve: Callable[[Portal], Web]
) -> None:
    portal = make_portal(
        OPTIONS
        | {
            "ckan.root_path": "/open/{{LANG}}",
            "ckanext.dbmanage.public_path": "/all/dumps/",
        }
    )
    web = serve(portal)
    publish(portal)
    page = main(web.ask("/all/dumps/").body)
    assert "/open/all/dumps/datasets.jsonl.gz" in page.links
    first = page.boxes["dbm-curl"].splitlines()[0]
    assert first == "URL=https://data.example.org/open/all/dumps"
    assert moved_to(web, "/all/dumps") == "/open/all/dumps/"
    assert web.ask("/dump/").status == 404


def test_old_or_incomplete_is_said(
    portal: Portal, serve: Callable[[Portal], Web]
) -> None:
    web = serve(portal)
    publish(portal, days=1.9)
    assert not main(web.ask("/dump/").body).all("div", role="status")
    publish(portal, days=2.1, failed=2, licence=None)
    page = main(web.ask("/dump/").body)
    assert page.all("div", role="status", **{"class": "dbm-note is-warn mb-3"})
    assert "These files are 2 days old. They are whole and valid" in page.words
    assert page.words.count("2 more could not be read and are missing") == 1
    # no licence, no section; what is said of each dataset's own stays
    assert not page.all("h2", id="dbm-licence") and "license_id" in page.words
    assert not page.all("h2", id="dbm-questions")


HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


@pytest.mark.parametrize(
    ("contact", "link"),
    [
        ("open@example.org", "mailto:open@example.org"),
        ("https://example.org/ask?a=1&b=2", "https://example.org/ask?a=1&b=2"),
        (f"https://example.org/{HOSTILE}", f"https://example.org/{HOSTILE}"),
        ("javascript://x%0aalert(1)", ""),
        (HOSTILE, ""),
    ],
)
def test_all_is_escaped(
    make_portal: Callable[..., Portal],
    serve: Callable[[Portal], Web],
    contact: str,
    link: str,
) -> None:
    portal = make_portal({"ckanext.dbmanage.public_contact": contact})
    web = serve(portal)
    publish(portal, days=5, failed=1, title=HOSTILE, url=HOSTILE)
    for url in ("javascript:alert(1)", f"https://x/{HOSTILE}", HOSTILE, 5, None):
        rewrite(portal, licence={"id": HOSTILE, "title": HOSTILE, "url": url})
        body = web.ask("/dump/").body
        page = main(body)
        assert HOSTILE not in body and html.escape(HOSTILE)[:20] in body
        assert HOSTILE in page.words and contact in page.words
        # a licence and a contact are links, when they are, and nothing else is
        others = [a for a in page.links if not a.startswith(("/dump/", "https://x/"))]
        assert others == [link] * bool(link)
        assert not page.all("script") and not page.all("img") and not page.all("style")
        # for a Content-Security-Policy without 'unsafe-inline'
        for tag, attributes in page.elements:
            inline = [n for n in attributes if n == "style" or n.startswith("on")]
            assert not inline, (tag, attributes)


BROKEN: list[Any] = [
    "", "broken", "[]", "{}", "null", "[" * 100_000,
    {"files": 1}, {"files": [{}]}, {"snapshot": None}, {"snapshot": "yesterday"},
    {"snapshot": "2026-11-20T00:00:00"}, {"snapshot": "0001-01-01T00:00:00+14:00"},
    {"published": 5}, {"uncompressed": 10**4000}, {"rows": "<b>"}, {"failed": -1},
    {"name": "../x"}, {"kind": "users"},
]  # fmt: skip


def test_a_broken_list_is_none(portal: Portal, serve: Callable[[Portal], Web]) -> None:
    directory = portal.storage / "dbmanage" / "public"
    index = directory / "index.json"
    web = serve(portal)

    def shows_none() -> bool:
        answer = web.ask("/dump/")
        return answer.status == 200 and "not made yet" in answer.body

    publish(portal)
    good = json.loads(index.read_text())
    assert not shows_none()
    for broken in BROKEN:
        if isinstance(broken, dict):
            first = good["files"][0] | {
                k: v for k, v in broken.items() if k in good["files"][0]
            }
            broken = good | {"files": [first, *good["files"][1:]]} | {
                k: v for k, v in broken.items() if k in good
            }  # fmt: skip
            broken = json.dumps(broken)
        index.write_text(broken)
        assert shows_none(), broken[:300]
    # what has no licence that makes sense is published all the same
    for licence in ([], "CC0", {"id": "x"}, {"title": 5}):
        index.write_text(json.dumps(good | {"licence": licence}))
        assert not shows_none() and web.ask("/dump/").status == 200
    for odd in ("0001-01-01T00:00:00.0Z", "9999-12-31T23:59:59.999999Z"):
        index.write_text(json.dumps(good | {"snapshot": odd}))
        assert not shows_none() and web.ask("/dump/").status == 200
    # not readable: a link to itself, which even root cannot follow; a file as directory
    index.unlink()
    index.symlink_to("index.json")
    assert shows_none()
    index.unlink()
    index.mkdir()
    assert shows_none()
    directory.rename(directory.with_name("away"))
    directory.write_text("no directory")
    assert shows_none()


def test_the_commands_are_those_of_the_documentation(
    make_portal: Callable[..., Portal], serve: Callable[[Portal], Web]
) -> None:
    """So they are run: test_docs.py runs those."""
    portal = make_portal(OPTIONS)
    web = serve(portal)
    publish(portal)
    boxes = main(web.ask("/dump/").body).boxes
    assert list(boxes) == ["dbm-curl", "dbm-ckanapi", "dbm-pandas", "dbm-duckdb"]
    first, _, boxes["dbm-curl"] = boxes["dbm-curl"].partition("\n")
    assert first == "URL=https://data.example.org/dump"
    text = (DOCS / "publish.rst").read_text()
    for shown in boxes.values():
        lines = [f"    {line}" if line else "" for line in shown.splitlines()]
        assert "\n".join(["", "", *lines, ""]) in f"{text}\n"
