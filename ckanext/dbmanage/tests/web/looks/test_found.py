"""What is found in the list and in the journal, and where links lead."""

from __future__ import annotations

import html
import re
from typing import Any
from urllib.parse import quote

from ...support.browser import BACKUPS
from ...support.site import PASSWORD, SYSADMIN, Session, Site


def test_backups_are_found_by_what_is_known_of_them(
    site: Site, shelf: dict[str, str]
) -> None:
    day = {number: shelf[f"day {number}"] for number in range(1, 13)}
    whole = ["database", "datastore", "files"]
    iso = f"{day[3][:4]}-{day[3][4:6]}-{day[3][6:8]}"

    def found(**asked: Any) -> list[str]:
        return [each["id"] for each in site.act("dbmanage_backup_list", **asked)]

    every = found()
    assert len(every) == 14
    assert found(q=day[3]) == found(q=iso) == [day[3]]
    assert found(q="KÖLN umzug") == [day[2], day[5], day[8], day[11]]
    assert found(q="before restore") == found(reason="before restore") == [day[4]]
    assert found(q="no such words") == []
    assert found(state="damaged") == [day[5]]
    assert found(state="foreign") == [shelf["foreign"]]
    assert found(held=True) == [day[2]]
    assert found(held=False) == [id for id in every if id != day[2]]
    assert found(parts=whole, held="") == [id for id in every if id != shelf["foreign"]]
    assert found(parts=["database"]) == []
    assert found(q="import", state="verified", before=day[4], limit=1) == [day[7]]
    # a day as the visitor's language writes it
    german = f"{day[3][6:8]}.{day[3][4:6]}.{day[3][:4]}"
    path = f"/de/api/3/action/dbmanage_backup_list?q={german}"
    answer = site.web.ask(path, Authorization=site.token)
    assert [each["id"] for each in answer.json["result"]] == [day[3]]
    # a wrong word is no answer that there is none
    refused = site.act("dbmanage_backup_list", state="damged")
    assert "damaged" in str(refused["error"]["state"])


def test_the_list_is_searched_in_the_address(
    site: Site, me: Session, shelf: dict[str, str]
) -> None:
    def shown(query: str) -> tuple[str, list[str]]:
        answer = me.ask("GET", BACKUPS + query)
        assert answer.status_code == 200
        table = answer.text.partition('<tbody role="rowgroup">')[2].partition(
            "</tbody>"
        )[0]
        return answer.text, re.findall(r"<code>(\w{16})</code>", table)

    page, ids = shown("")
    assert len(ids) == 10 and "1 to 10 of 14" in page
    page, ids = shown(f"?before={ids[-1]}")
    assert len(ids) == 4 and "11 to 14 of 14" in page and "Newer backups" in page
    page, ids = shown("?q=import&state=verified")
    assert ids == [shelf[f"day {n}"] for n in (1, 4, 7, 10)] and "4 of 14" in page
    assert 'name="q" value="import"' in page
    # a note is a tag that leads to those that have it
    note = quote("Vor dem Umzug nach Köln", safe="").replace("%20", "+")
    assert f'href="{BACKUPS}?q={note}#list-h"' in html.unescape(page)
    page, ids = shown("?q=%3Cscript%3Ealert%281%29")
    assert (
        ids == [] and "No backup is like that." in page and "<script>alert" not in page
    )
    assert "No backup yet" not in page
    # what may not be chosen is left out
    assert len(shown("?state=nonsense&held=perhaps&parts=x")[1]) == 10


def test_the_journal_is_searched_by_what_who_and_when(
    site: Site, me: Session, shelf: dict[str, str]
) -> None:
    def found(**asked: Any) -> set[str]:
        return {line["what"] for line in site.act("dbmanage_journal", **asked)["lines"]}

    every = site.act("dbmanage_journal")
    assert {"backup", "proof", "verify", "keep", "cancel"} <= set(every["whats"])
    assert SYSADMIN in every["whos"] and len(every["whos"]) == 2
    assert found(what="keep") == {"keep"}
    # another test of the same site may have looked at a thing
    assert found(who=SYSADMIN) - {"preview thing"} == {"backup", "cancel"}
    today, first = (every["lines"][n]["time"][:10] for n in (0, -1))
    assert found(since=first, until=today) == found()
    assert found(until="2020-01-01") == found(since="2100-01-01") == set()
    last = every["lines"][-1]["time"]
    assert site.act("dbmanage_journal", until=last)["lines"][-1] == every["lines"][-1]
    short = site.act("dbmanage_journal", limit=2)
    assert len(short["lines"]) == 2 and short["count"] == every["count"]
    for wrong in ("yesterday", "2026-13-01", "20261126", "2026-11-26T00:00"):
        refused = site.act("dbmanage_journal", since=wrong)
        assert "A day as 2026-11-23" in str(refused["error"]["since"]), wrong

    page = me.ask("GET", f"{BACKUPS}journal?what=keep&since={today}").text
    assert "1 line" in page and f'value="{today}"' in page
    assert '<option value="keep" selected>' in page
    page = me.ask("GET", f"{BACKUPS}journal?since=yesterday").text
    assert "A day as 2026-11-23" in page


def test_odd_values_to_look_for_are_refused(site: Site, shelf: dict[str, str]) -> None:
    fields = {
        "dbmanage_backup_list": ("q", "state", "held", "reason"),
        "dbmanage_journal": ("what", "who", "since"),
    }
    odd = ([], {}, [1], {"a": 1}, -1, 10**30, "\x00", "\udc80", "../x", "x" * 50_000)
    for name, names in fields.items():
        for field in names:
            for value in odd:
                answer = site.web.ask(
                    f"/api/3/action/{name}", "POST", {field: value},
                    Authorization=site.token,
                )  # fmt: skip
                assert answer.status < 500, (name, field, value, answer.body)


def test_a_download_has_the_size_that_was_said_and_a_used_link_says_so(
    site: Site, me: Session, shelf: dict[str, str]
) -> None:
    id = shelf["proven"]
    shown = site.act("dbmanage_backup_show", id=id, sizes=True)["download_sizes"]
    assert "download_sizes" not in site.act("dbmanage_backup_show", id=id)
    for name in ("all.tar", "manifest.json"):
        site.arm(id, "download")
        made = me.post(f"{BACKUPS}{id}/download", file=name, password=PASSWORD)
        (path,) = set(re.findall(rf'{BACKUPS}file/[^"]+', made.text))
        assert len(me.ask("GET", path).content) == shown[name], name
    again = me.ask("GET", path)
    assert again.status_code == 410
    assert re.search(r"This link was used at \d+ \w+ \d{4}, \d\d:\d\d", again.text)
    assert f'href="{BACKUPS}{id}/download"' in again.text
    other = me.ask("GET", f"{BACKUPS}file/nobody-s/all.tar")
    assert other.status_code == 404 and "not good any more" in other.text


def test_the_evidence_of_a_proof_is_shown_and_runs_nothing(
    site: Site, me: Session, shelf: dict[str, str]
) -> None:
    path = f"{BACKUPS}{shelf['proven']}"
    assert site.act("dbmanage_backup_show", id=shelf["proven"])["evidence"] is True
    assert f'href="{path}/evidence"' in me.ask("GET", path).text
    answer = me.ask("GET", f"{path}/evidence")
    assert (
        answer.status_code == 200 and "Rows, as many as in the manifest" in answer.text
    )
    policy = answer.headers["Content-Security-Policy"]
    assert "sandbox" in policy and "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    other = f"{BACKUPS}{shelf['day 1']}"
    assert "/evidence" not in me.ask("GET", other).text
    assert me.ask("GET", f"{other}/evidence").status_code == 404
    assert site.session("user-3").ask("GET", f"{path}/evidence").status_code == 403


def test_tables_are_named_by_their_resource_and_dataset(
    site: Site, me: Session, shelf: dict[str, str]
) -> None:
    largest = site.act("dbmanage_status", tables=True)["tables"]["datastore"]["largest"]
    named = {each["table"]: each["resource"] for each in largest}
    assert named["00000001-0000-4000-8000-000000000000"] is None
    known = named["00000000-0000-4000-8000-000000000000"]
    assert known["dataset"] == "dataset-1" and known["name"].startswith("Luftqualität")
    page = me.ask("GET", f"{BACKUPS}tables").text
    assert "/dataset/dataset-1/resource/00000000-0000-4000-8000-000000000000" in page
    assert "of no resource" in page


def test_the_history_of_a_record_is_found_by_the_page_and_the_action(
    site: Site, me: Session, shelf: dict[str, str]
) -> None:
    action = "/api/3/action/dbmanage_history?name=dataset-7"
    token = {"Authorization": site.token}
    told = site.web.ask(f"{action}&kind=dataset", **token).json["result"]
    (thing,) = told["things"]
    (run,) = thing["runs"]
    assert run["backups"] == told["backups"] == 14
    assert run["to"] == shelf["proven"] and run["from"] == shelf["foreign"]
    assert told["unsigned"] == [shelf["foreign"]]
    assert told["damaged"] == [shelf["day 5"]]
    page = me.ask("GET", f"{BACKUPS}history?kind=dataset&name=dataset-7").text
    assert 'value="dataset-7"' in page and "14 backups were looked at" in page
    for name in ("proven", "foreign", "day 5"):
        assert f'href="{BACKUPS}{shelf[name]}"' in page
    hostile = quote("\"><b>'\x1b")
    page = me.ask("GET", f"{BACKUPS}history?kind=dataset&name={hostile}").text
    assert "No backup knows such a record." in page and "<b>'" not in page
    page = me.ask("GET", f"{BACKUPS}history?kind=spaceship&name=x").text
    assert "Choose from dataset, organization" in page
    nul = f"{action.partition('?')[0]}?kind=dataset&name=%00"
    assert site.web.ask(nul, **token).json["result"]["things"] == []
    assert "kind" in site.web.ask(action, **token).json["error"]
    german = me.ask("GET", f"/de{BACKUPS}history?kind=user&name=user-3").text
    assert "14 Sicherungen wurden durchgesehen." in german
