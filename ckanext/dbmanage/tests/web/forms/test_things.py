"""One thing back, as far as no worker is needed: what is offered, asked and refused."""

from __future__ import annotations

import html
import re
import shutil
from typing import Any

import pytest

from ...support.pages import BACKUPS, text
from ...support.site import ORG_ADMIN, PASSWORD, SYSADMIN, USER, Session, Site


def forms(page: str) -> list[dict[str, Any]]:
    """The forms of a page that ask what would come back: fields, and backups in `id`."""
    found = re.findall(rf'<form method="post" action="{BACKUPS}thing">(.*?)</form>', page, re.S)  # fmt: skip
    return [
        {
            "kind": re.findall(r'name="kind" value="([^"]*)"', each),
            "name": re.findall(r'name="name" value="([^"]*)"', each),
            "id": re.findall(r'value="(\d{8}T\d{6}Z)"', each),
        }
        for each in map(html.unescape, found)
    ]


def test_the_history_offers_each_backup_in_which_a_thing_stands(
    site: Site, me: Session, backup: str
) -> None:
    path = f"{BACKUPS}history?kind=dataset&name=dataset-8"
    foreign = site.portal.repository / "20200101T000000Z"
    shutil.copytree(site.portal.repository / backup, foreign)
    same = site.portal.backup("--only", "database").name
    site.portal.sql("UPDATE package SET title = 'Other' WHERE id = 'id-8'")
    other = site.portal.backup("--only", "database").name
    offered = forms(me.ask("GET", path).text)
    site.portal.sql("UPDATE package SET title = 'Dataset 東京 8' WHERE id = 'id-8'")
    wanted = {"kind": ["dataset"], "name": ["id-8"]}
    # the newest first; none that this site has not signed
    assert offered == [wanted | {"id": [same, backup]}, wanted | {"id": [other]}]
    # where it does not stand, nothing is offered; a resource leads to its dataset
    assert forms(me.ask("GET", path.replace("dataset-8", "no-such")).text) == []
    page = me.ask("GET", f"{BACKUPS}history?kind=resource&name=r-8").text
    assert forms(page) == [] and f"{BACKUPS}history?kind=dataset&amp;name=id-8" in page


def test_what_would_come_back_is_asked_by_a_form(
    site: Site, me: Session, backup: str, token: str
) -> None:
    asked = {"id": backup, "kind": "dataset", "name": "id-7"}
    made = [me.post(f"{BACKUPS}thing", **asked).headers["Location"] for _ in range(2)]
    assert made[0] == made[1]  # a second click
    job = site.act("dbmanage_job_show", token, id=made[0].rpartition("/")[2])
    assert job["kind"] == "preview thing"
    chosen = {"kind": "dataset", "names": ["id-7"], "with_datasets": False}
    assert job["arguments"] == {"id": backup} | chosen
    page = me.ask("GET", made[0].removeprefix(site.base)).text
    assert "No worker runs." in page and "Bring it back" not in page
    site.act("dbmanage_job_cancel", token, id=job["id"])
    refused = me.post(f"{BACKUPS}thing", **asked | {"kind": "spaceship"})
    back = refused.headers["Location"].removeprefix(site.base)
    assert "Choose from dataset, organization" in text(me.ask("GET", back).text)
    # a page of a job of another kind it is not
    other = site.act("dbmanage_publish", token)["id"]
    assert me.ask("GET", f"{BACKUPS}thing/{other}").status_code == 404
    site.act("dbmanage_job_cancel", token, id=other)


@pytest.mark.parametrize(
    ("field", "changed", "why"),
    [
        ("kind", {"kind": "resource"}, "Choose from dataset, organization"),
        ("names", {"names": []}, "Missing value"),
        ("names", {"names": [f"n{n}" for n in range(101)]}, "at most 100 names"),
        ("names", {"names": [{"a": 1}]}, "at most 100 names"),
        ("as_name", {"names": ["a", "b"], "as_name": "c"}, "one thing only"),
        ("with_datasets", {"with_datasets": True}, "Only an organization"),
        ("confirm", {"confirm": "x"}, "Unknown parameter"),
    ],
)
def test_an_action_that_asks_for_nonsense_is_refused(
    site: Site, backup: str, token: str, field: str, changed: dict[str, Any], why: str
) -> None:
    asked = {"id": backup, "kind": "dataset", "names": "dataset-7"} | changed
    refused = site.act("dbmanage_bring_back", token, **asked)
    assert why in str(refused["error"][field]), refused
    assert site.act("dbmanage_job_list", token) == []


def test_nobody_but_sysadmins_brings_back_and_nothing_of_strangers(
    site: Site, backup: str, token: str
) -> None:
    asked = {"id": backup, "kind": "dataset", "names": "dataset-7"}
    for name in (USER, ORG_ADMIN):
        for preview in (True, False):
            own = site.api_token(name)
            refused = site.act("dbmanage_bring_back", own, preview=preview, **asked)
            assert refused["error"]["__type"] == "Authorization Error", refused
    foreign = site.portal.repository / "20200101T000000Z"
    shutil.copytree(site.portal.repository / backup, foreign)
    for preview in (True, False):
        strange = asked | {"id": foreign.name, "preview": preview}
        refused = site.act("dbmanage_bring_back", token, **strange)
        assert "not signed by this site" in str(refused["error"]["id"]), refused
    gone = site.act("dbmanage_bring_back", token, **asked | {"id": "20010101T000000Z"})
    assert gone["error"]["__type"] == "Not Found Error"
    assert site.act("dbmanage_job_list", token) == []


def test_a_user_comes_back_by_an_operator_s_word_alone(
    site: Site, me: Session, backup: str, token: str
) -> None:
    asked = {"id": backup, "kind": "user", "names": ["user-3"]}
    refused = site.act("dbmanage_bring_back", token, **asked)
    assert refused["error"]["__type"] == "Authorization Error"
    assert f" db arm {backup}`" in refused["error"]["message"]
    # for another deed, or another backup, it is not armed
    site.arm(backup, "download")
    refused = site.act("dbmanage_bring_back", token, **asked)
    assert refused["error"]["__type"] == "Authorization Error"
    site.arm(backup)
    # who sits at somebody's browser needs the password too
    session = me.token(BACKUPS)
    wrong = me.ask(
        "POST", "/api/3/action/dbmanage_bring_back", json=asked,
        headers={"X-CSRFToken": session["_csrf_token"]},
    ).json()  # fmt: skip
    assert "not your password" in str(wrong["error"]["password"])
    assert site.act("dbmanage_status", token)["armed"]["backup"] == backup
    # what needs no arming does not use it up
    dataset = site.act("dbmanage_bring_back", token, **asked | {"kind": "dataset"})
    assert dataset["kind"] == "thing" and dataset["until"]
    site.act("dbmanage_job_cancel", token, id=dataset["id"])
    armed = site.act("dbmanage_status", token)["armed"]
    made = site.act("dbmanage_bring_back", token, note="back from leave", **asked)
    assert made["state"] == "queued" and made["until"] == armed["until"]
    assert site.act("dbmanage_status", token)["armed"] is None
    again = site.act("dbmanage_bring_back", token, note="back from leave", **asked)
    assert again["id"] == made["id"]
    site.act("dbmanage_job_cancel", token, id=made["id"])
    lines = [e for e in site.journal if e.get("what") == "thing"]
    assert [e["event"] for e in lines] == ["refused"] * 3 + ["asked"] * 2
    assert lines[-1]["note"] == "back from leave" and lines[-1]["user"] == SYSADMIN
    assert PASSWORD not in str(lines)
