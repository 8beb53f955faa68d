"""Each route of ours: who may ask it, and with what on the disk."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest

from ...support import forked
from ...support.site import (
    ORG_ADMIN,
    SYSADMIN,
    USER,
    Site,
)


def test_a_hostile_backup_is_shown_and_harms_nobody(site: Site) -> None:
    backup = site.portal.backup()
    foreign = backup.parent / "20200101T000000Z"
    subprocess.run(["cp", "-a", backup, foreign], check=True)
    manifest = json.loads((foreign / "manifest.json").read_text())
    script = "<script>alert(1)</script>"
    manifest |= {"note": script, "reason": script, "created": script, "seconds": script}
    manifest["contents"] = {"../../../etc/passwd": {"bytes": script, "sha256": script}}
    (foreign / "manifest.json").write_text(json.dumps(manifest))
    garbage = backup.parent / "20200102T000000Z"
    garbage.mkdir()
    (garbage / "manifest.json").write_bytes(b"\xff{")
    (backup.parent / "20200103T000000Z").mkdir()
    browser = site.session(SYSADMIN)
    for path in ("", foreign.name, garbage.name, f"{foreign.name}/restore",
                 f"{foreign.name}/download", f"{garbage.name}/delete", "journal"):  # fmt: skip
        answer = browser.ask("GET", f"/ckan-admin/backups/{path}")
        assert answer.status_code == 200, (path, answer.text[-3000:])
        assert script not in answer.text and "/etc/passwd" not in answer.text
    page = browser.ask("GET", f"/ckan-admin/backups/{foreign.name}/restore").text
    assert "not signed by this site" in page


ROUTES = """
import json, sys
from ckan.cli import load_config
from ckan.config.middleware import make_app
app = make_app(load_config(sys.argv[1]))._wsgi_app
def ours(endpoint):
    module = getattr(app.view_functions[endpoint], "__module__", "")
    return endpoint.startswith("dbmanage") or module.startswith("ckanext.dbmanage")
rules = [rule for rule in app.url_map.iter_rules() if ours(rule.endpoint)]
found = [[rule.rule, sorted(rule.methods), sorted(rule.arguments), rule.endpoint]
         for rule in rules]
# where an address with a variable in it fits too, CKAN 2.10 takes the first
asked = app.url_map.bind("x.test")
for rule in rules:
    for method in rule.methods - {"OPTIONS"}:
        if not rule.arguments:
            assert asked.match(rule.rule, method)[0] == rule.endpoint, rule
print("ROUTES", json.dumps(found))
"""

#: what anybody may see: the page of the public dumps, and nothing else
PUBLIC = {"dbmanage.dumps": 200, "dbmanage.dumps_slash": 308}


@pytest.mark.smoke
def test_every_route_is_guarded(site: Site) -> None:
    command = [sys.executable, "-c", ROUTES, site.portal.ini]
    done = forked.run(command, text=True, env=site.portal.environment)
    assert done.returncode == 0, done.stderr
    routes = json.loads(done.stdout.split("ROUTES", 1)[1])
    endpoints = {endpoint for *_, endpoint in routes}
    assert set(PUBLIC) < endpoints
    assert len(endpoints) >= 21, endpoints
    id = site.portal.backup().name
    people = {name: site.session(name) for name in ("", USER, ORG_ADMIN, SYSADMIN)}
    asked = site.act("dbmanage_publish")
    paths = []
    for rule, methods, arguments, endpoint in routes:
        if endpoint in PUBLIC:
            answer = people[""].ask("GET", rule)
            assert answer.status_code == PUBLIC[endpoint] and id not in answer.text
            assert people[""].ask("POST", rule).status_code == 405
            continue
        assert "backups" in rule, rule
        known = {"id": asked["id"] if "/job/" in rule else id, "token": "x"}
        path = rule
        for argument in arguments:
            path = path.replace(f"<{argument}>", known.get(argument, "y"))
        paths.append((path, methods))
    # so that Flask answers the others by itself, without any code of ours
    assert {*chain(*(methods for _, methods in paths))} == {
        "GET", "HEAD", "POST", "OPTIONS",
    }  # fmt: skip

    def ask_all(name: str) -> None:
        browser, form = people[name], people[name].token()
        for number, (path, methods) in enumerate(paths):
            others = () if number else ("PUT", "DELETE")
            for method in ("GET", "HEAD", "POST", *others):
                for token in (False, True) if method == "POST" else (False,):
                    answer = browser.ask(method, path, data=form if token else None)
                    where = (method, path, name, token, answer.status_code)
                    if name != SYSADMIN:
                        login = answer.headers.get("Location", "").split("?")[0]
                        there = (403,) if method in methods else (403, 404, 405)
                        assert answer.status_code in there or (
                            name == "" and login.endswith("/user/login")
                        ), where
                        assert id in path or id not in answer.text, where
                    elif method == "POST" and not token and "POST" in methods:
                        assert answer.status_code == 400, where  # no CSRF token
                    else:
                        assert answer.status_code < 500, (where, answer.text[-2000:])
                        assert answer.status_code != 403, where
                    if method in methods and name == SYSADMIN:
                        assert answer.headers["X-Frame-Options"] == "DENY", where
                        assert answer.headers["Cache-Control"] == "no-store, private"

    # side by side, for it takes long
    with ThreadPoolExecutor() as pool:
        list(pool.map(ask_all, people))
