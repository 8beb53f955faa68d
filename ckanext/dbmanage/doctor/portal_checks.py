"""Checks that know CKAN: schema, index, uploads, DataStore."""

import os
import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from ..engine.postgres.database import closing, query, quoted
from ..engine.postgres.tables import migration_heads, rows_of, tables_of, texts
from ..engine.repository.repository import Repository
from ..engine.site import Site
from ..engine.uploads.folders import folders_of, paths
from ..operations.context import Portal, application
from ..portal import blockers, datastore
from ..portal.installed import CORE, installed_migrations, owner_of
from .finding import HINT, OK, PROBLEM, Found

_SHOWN = 3


def migrations(portal: Portal, site: Site, _: Repository) -> Found:
    plugins = portal.options.plugins
    with closing(site.databases["database"].connect()) as connection:
        there = migration_heads(connection)
    if CORE not in there:
        yield PROBLEM, "the database has no tables of CKAN: `ckan db init` creates them"
        return
    known = installed_migrations(plugins)
    installed = {f"{e.name}_{CORE}": e.name for e in entry_points(group="ckan.plugins")}
    others = there.keys() - known.keys()
    for table in sorted(others - installed.keys()):
        yield (
            HINT,
            f"the database holds migrations of a plugin that is not installed ({table})"
            f": install it, or DROP TABLE {quoted('public', table)}; when it is gone "
            "for good",
        )
    disabled = [installed[table] for table in sorted(others & installed.keys())]
    behind = 0
    for table, each in installed_migrations([*plugins, *disabled]).items():
        owner = owner_of(table)
        revisions = set(there.get(table, ()))
        if revisions == each.heads:
            continue
        behind += 1
        if revisions - each.revisions:
            yield (
                PROBLEM,
                f"the database is ahead of the installed code of {owner} "
                f"({', '.join(sorted(revisions))}): install the one it was used with",
            )
        elif table in known:
            yield PROBLEM, f"migrations of {owner} are pending: `ckan db upgrade`"
        else:
            yield (
                HINT,
                f"the plugin {owner!r} is not enabled, and its tables are behind its "
                "installed code: enable it, then `ckan db upgrade`",
            )
    if not behind:
        yield OK, "all migrations have been run"


def users(_: Portal, site: Site, __: Repository) -> Found:
    with closing(site.databases["database"].connect()) as connection:
        shared = list(blockers.emails(connection))
    yield from ((HINT, " ".join(sentence.split())) for sentence in shared)
    if not shared:
        yield OK, "no two active users have the same e-mail address"


def search_index(portal: Portal, _: Site, __: Repository) -> Found:
    if portal.app is None:  # CKAN was not started
        return
    from ..records.search_index import Index, unanswered

    with application(portal):
        try:
            changed, orphans = Index(portal.options).differing()
        except Exception as error:
            yield PROBLEM, unanswered(error)
            return
    wrong = []
    if changed:
        wrong.append(f"{len(changed)} datasets are missing or old in it")
    if orphans:
        wrong.append(f"{len(orphans)} in it are in the database no more")
    if wrong:
        yield PROBLEM, f"{', '.join(wrong)}: `ckan db reindex --changed`"
    else:
        yield OK, "the search index is in step with the database"


#: PostgreSQL 14's schema public, which the superuser owns
_NOT_OURS = """
SELECT 1 FROM pg_namespace
WHERE nspname = 'public' AND NOT pg_has_role(nspowner, 'USAGE')
"""


def permissions(_: Portal, site: Site, __: Repository) -> Found:
    store = site.databases.get("datastore")
    if store is None or store.read_url is None:
        return
    mend = "`ckan db doctor --fix` sets them"
    with closing(store.connect()) as connection:
        if query(connection, _NOT_OURS):
            mend = (
                f"run as PostgreSQL's superuser in the database {store.name!r} "
                f"`ALTER SCHEMA public OWNER TO {quoted(store.role)};`, then "
                "`ckan db doctor --fix`"
            )
    problems = list(datastore.unset_permissions(store, site.databases["database"]))
    for sentence in problems:
        yield PROBLEM, f"{sentence}: the DataStore's permissions, {mend}"
    excess = list(datastore.excess(store))
    yield from ((PROBLEM, sentence) for sentence in excess)
    if not problems and not excess:
        yield OK, "the DataStore's permissions are those that core sets"


def datastore_tables(_: Portal, site: Site, __: Repository) -> Found:
    if "datastore" not in site.databases:
        return
    with closing(site.databases["datastore"].connect()) as connection:
        tables = {
            name
            for schema, name, *_ in tables_of(connection)
            if schema == "public"
            and re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){4}.*", name)
        }
    with closing(site.databases["database"].connect()) as connection:
        if tables:
            tables -= {
                name
                for (name,) in query(
                    connection,
                    "SELECT id FROM public.resource WHERE state = 'active'"
                    " AND id = ANY(%s)",
                    sorted(tables),
                )
            }
    if tables:
        yield (
            HINT,
            f"{len(tables)} tables of the DataStore belong to no resource "
            f"({_some(tables)}): `ckan datastore purge` drops them",
        )
    else:
        yield OK, "every table of the DataStore belongs to a resource"


def upload_files(_: Portal, site: Site, repository: Repository) -> Found:
    if not site.uploads:
        return
    named: set[str] = set()
    own: set[str] = set()
    with closing(site.databases["database"].connect()) as connection:
        for path, is_own in rows_of(connection, site.named_uploads):
            (own if is_own else named).add(path)
        # an upload of a deleted resource stays until the resource is purged
        ids = "SELECT id FROM public.resource WHERE url_type = 'upload'"
        known = set(texts(connection, {"resource": ids}))
    found = set(paths(folders_of(site.uploads, repository.path)))
    missing = sorted(own - found)
    named = own | (named & found)  # by others nothing is looked for
    unnamed = sorted(
        path
        for path in found - named
        if path.startswith(("resources/", "storage/uploads/"))
        and _resource(path) not in known
    )
    if missing:
        yield (
            PROBLEM,
            f"{len(missing)} uploads that the database names are not on the disk "
            f"({_some(missing)}): `ckan db backups ID --fetch PATH` brings one back",
        )
    if unnamed:
        yield (
            HINT,
            f"{len(unnamed)} uploads on the disk are named by nothing in the database "
            f"({_some(unnamed)})",
        )
    if not missing and not unnamed:
        yield OK, f"{len(named)} uploads are on the disk, and nothing else"


def _resource(path: str) -> str:
    """The id of the resource whose upload CKAN keeps at this path."""
    return "".join(Path(path).parts[-3:])


def secrets(portal: Portal, _: Site, __: Repository) -> Found:
    odd = False
    for option in ("SECRET_KEY", "beaker.session.secret"):
        value = portal.options.text(option)
        if value and (len(value) < 16 or "CHANGE" in value.upper()):
            odd = True
            yield HINT, f"{option} is short or was never changed: set a random one"
    if not odd:
        yield OK, "the secrets that sign sessions and backups are set"


def _some(names: Any) -> str:
    listed = sorted(names)
    more = ", …" if len(listed) > _SHOWN else ""
    return ", ".join(map(os.fspath, listed[:_SHOWN])) + more
