"""Loads the demo's portal: real datasets of real portals, through CKAN's own actions.

    .services/venv/bin/python bin/portal/load.py ckan.ini

Maps what CKAN's core knows, keeps the rest as extras, and says on stderr what it could
not keep. Prints nothing else. For an empty portal; what is there already stays.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import logging
import re
import secrets
import sys
import uuid
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore")

DATASETS = Path(__file__).with_name("datasets.jsonl.gz")
LANGUAGES = ("en", "de", "fr", "it", "rm")
USERS = ("editor-tokyo", "editor-oslo", "editor-zurich", "reader")
TABLES = 5

#: what core's own schema takes as it is
FIELDS = (
    "id", "name", "title", "notes", "url", "version", "author", "author_email",
    "maintainer", "maintainer_email", "license_id", "private",
)  # fmt: skip
#: what CKAN makes itself out of the rest
DERIVED = {
    "creator_user_id", "display_name", "isopen", "license_title", "license_url",
    "metadata_created", "metadata_modified", "num_resources", "num_tags",
    "organization", "owner_org", "relationships_as_object", "relationships_as_subject",
    "revision_id", "revision_timestamp", "state", "type",
    "resources", "tags", "groups", "extras",
}  # fmt: skip
DERIVED_OF_RESOURCES = {
    "package_id", "position", "revision_id", "state", "display_name", "created",
    "metadata_modified", "url_type", "datastore_active", "resource_id", "upload",
}  # fmt: skip

dropped: Counter[str] = Counter()


def text(value: Any) -> str:
    """One text of a value that may be a dictionary of languages, or anything."""
    if isinstance(value, str) and value.startswith('{"') and '"en"' in value:
        value = json.loads(value)
    if isinstance(value, dict):
        value = next((value[k] for k in LANGUAGES if value.get(k)), "")
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def slug(name: str) -> str:
    """A name as CKAN takes it."""
    return re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-").ljust(2, "-")[:100]


def mapped(given: dict[str, Any]) -> dict[str, Any]:
    """A dataset as core's `package_create` takes it."""
    dataset = {key: given[key] for key in FIELDS if given.get(key) is not None}
    for key in ("title", "notes", "url", "author", "maintainer"):
        dataset[key] = text(dataset.get(key))
    dataset["notes"] = dataset["notes"] or text(given.get("description"))
    if not re.fullmatch(r"[0-9a-f-]{36}", dataset["id"]):
        dropped["dataset id that is no UUID"] += 1
        dataset["id"] = str(uuid.uuid5(uuid.NAMESPACE_URL, dataset["name"]))
    dataset["owner_org"] = slug(given["organization"]["name"])
    dataset["tags"] = list(tags(given))
    dataset["groups"] = [{"name": slug(g["name"])} for g in given.get("groups") or []]
    dataset["extras"] = list(extras(given))
    dataset["resources"] = [resource(one) for one in given["resources"]]
    return dataset


def tags(given: dict[str, Any]) -> Any:
    names = [tag["name"] for tag in given.get("tags") or []]
    keywords = given.get("keywords") or {}
    names += next((keywords[k] for k in LANGUAGES if keywords.get(k)), [])
    seen = set()
    for name in names:
        cleaned = " ".join(re.sub(r"[^\w .-]+", " ", name).split())[:100]
        if len(cleaned) < 2:
            dropped["tag shorter than two characters"] += 1
        elif cleaned not in seen:
            seen.add(cleaned)
            yield {"name": cleaned}


def extras(given: dict[str, Any]) -> Any:
    seen = set()
    for extra in given.get("extras") or []:
        if extra["key"] in seen:
            dropped[f"extra {extra['key']!r} given twice"] += 1
        elif extra["value"] not in (None, ""):
            seen.add(extra["key"])
            yield {"key": extra["key"], "value": text(extra["value"])}
    others = {key: given[key] for key in set(given) - set(FIELDS) - DERIVED}
    # core has one language for these: the other ones are kept beside
    for key in FIELDS:
        if isinstance(given.get(key), dict):
            others[f"{key}_translated"] = given[key]
    for key, value in sorted(others.items()):
        if value not in (None, "", [], {}) and key not in seen:
            value = value if isinstance(value, str) else json.dumps(
                value, ensure_ascii=False)  # fmt: skip
            yield {"key": key, "value": value}


def resource(given: dict[str, Any]) -> dict[str, Any]:
    made = {}
    for key, value in given.items():
        if key in DERIVED_OF_RESOURCES or value in (None, "", [], {}):
            continue
        if key.startswith(("tracking_summary", "__")) or not key:
            dropped[f"resource field {key!r}"] += 1
        else:
            made[key] = value
    for key in ("name", "description", "title"):
        if key in made:
            made[key] = text(made[key])
    if not str(made.get("size", 0)).isdigit():
        dropped["resource size that is no number"] += 1
        del made["size"]
    if given.get("url_type") == "upload":
        dropped["uploaded file (its address is kept)"] += 1
    return made


def table(datasets: list[dict[str, Any]], of: str) -> dict[str, Any]:
    """A DataStore table: the list of all resources of a portal's datasets."""
    rows = [
        {
            "dataset": one["name"],
            "position": position,
            "name": resource.get("name") or "",
            "format": resource.get("format") or "",
            "size": int(resource["size"]) if resource.get("size") else None,
            "address": resource.get("url") or "",
            "details": {
                k: v for k, v in resource.items() if k in ("id", "hash", "mimetype")
            },
        }
        for one in datasets
        for position, resource in enumerate(one["resources"])
    ]
    types = ("text", "int", "text", "text", "numeric", "text", "json")
    fields = [{"id": id, "type": type} for id, type in zip(rows[0], types, strict=True)]
    return {
        "resource": {
            "package_id": max(datasets, key=lambda d: len(d["resources"]))["id"],
            "name": f"All resources taken from {of}",
            "format": "CSV",
        },
        "fields": fields,
        "records": rows,
        "force": True,
    }


def upload(made: dict[str, Any]) -> dict[str, Any]:
    """The same table as an uploaded file."""
    from werkzeug.datastructures import FileStorage

    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(field["id"] for field in made["fields"])
    writer.writerows(row.values() for row in made["records"])
    file = FileStorage(io.BytesIO(out.getvalue().encode()), "resources.csv")
    name = f"{made['resource']['name']}, as a file"
    return made["resource"] | {"name": name, "upload": file}


def load(password: Path) -> None:
    """Makes users, organizations, groups, datasets and DataStore tables.

    The password of the sysadmin `admin` goes to a file that only its owner may read.
    """
    import ckan.model as model
    import ckantoolkit as tk
    from ckan.lib import search

    admin = tk.get_action("get_site_user")({"ignore_auth": True}, {})["name"]

    def act(action: str, data: dict[str, Any]) -> dict[str, Any]:
        # a fresh context for each: actions leave their traces in it
        return tk.get_action(action)({"user": admin, "ignore_auth": True}, data)

    with gzip.open(DATASETS, "rt", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    for user in USERS:
        if model.User.get(user) is None:
            act(
                "user_create",
                {
                    "name": user,
                    "email": f"{user}@example.org",
                    "fullname": user.replace("-", " ").title(),
                    "password": secrets.token_urlsafe(24),
                },
            )
    if model.User.get("admin") is None:
        word = secrets.token_urlsafe(12)
        password.touch(mode=0o600)
        password.write_text(word + "\n")
        user = {"name": "admin", "email": "admin@example.org", "password": word}
        act("user_create", user)
        model.User.get("admin").sysadmin = True
        model.repo.commit()
    by_portal: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        given = line["dataset"]
        for kind, one in [
            ("organization", given["organization"]),
            *(("group", group) for group in given.get("groups") or []),
        ]:
            if model.Group.get(slug(one["name"])) is None:
                act(
                    f"{kind}_create",
                    {
                        "name": slug(one["name"]),
                        "title": text(one.get("title")),
                        "description": text(one.get("description")),
                    },
                )
        dataset = mapped(given)
        by_portal.setdefault(line["portal"], []).append(dataset)
        if model.Package.get(dataset["name"]) is None:
            try:
                act("package_create", dataset)
            except tk.ValidationError as error:
                raise SystemExit(f"{dataset['name']}: {error}") from error
    largest = sorted(
        by_portal, key=lambda p: -sum(len(d["resources"]) for d in by_portal[p])
    )
    for portal in largest[:TABLES]:
        made = table(by_portal[portal], portal)
        file = upload(made)
        act("datastore_create", made)  # takes what it is given apart
        act("resource_create", file)
    search.commit()


def main(ini: str) -> None:
    from ckan.cli import load_config
    from ckan.config.middleware import make_app

    logging.disable(logging.WARNING)
    settings = load_config(ini)
    settings["ckan.search.solr_commit"] = "false"  # once, at the end
    app = make_app(settings)._wsgi_app
    with app.test_request_context():
        load(Path(ini).with_name("admin.password"))
    for what, count in sorted(dropped.items()):
        print(f"demo: not kept: {what}: {count} times", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1])
