"""Things are put back into CKAN: in one transaction, which whoever asks ends."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import sqlalchemy as sa
from ckan import logic, model

from ..engine.errors import Refused
from ..engine.postgres.again import passes
from ..engine.postgres.database import LIMITS
from ..engine.printable import one_line
from ..portal.config import Options
from .kinds import Record
from .reasons import reasons
from .swaps import swap
from .thing import ACTIONS, Other, Tables, Thing, datasets_of, read, sysadmin
from .write import Writes, apart, quicker
from .written import How, There

#: how long a save that is under way may keep its dataset
_WAIT = "30s"
#: ids that CKAN let pass before it wanted UUIDs
_OLD_ID = re.compile("[0-9A-Za-z][0-9A-Za-z _-]{0,99}")
_TABLES = {"dataset": "package", "organization": "group", "group": "group"}


@contextmanager
def bringing(options: Options, tables: Tables) -> Iterator[Bringing]:
    """A transaction of CKAN's session, rolled back unless it was committed.

    Needs CKAN's application context. `tables` says which resources have a table in the
    live DataStore.
    """
    name = sysadmin()
    model.Session.commit()  # CKAN may just have made that user
    try:
        with quicker(name):
            yield Bringing(options, tables, name)
    finally:
        model.Session.rollback()
        model.Session.remove()


class Bringing:
    """Writes things into the open transaction.

    `warnings` are what could not be as it was then, `datasets` the ids of those to be
    indexed after the commit.
    """

    def __init__(self, options: Options, tables: Tables, user: str) -> None:
        self._options, self._tables, self._user = options, tables, user
        self.warnings: list[str] = []
        self.datasets: dict[str, None] = {}
        off = "SELECT set_config(name, :value, true) FROM pg_settings WHERE name = "
        for statement, value in (("ANY(:names)", "0"), ("'lock_timeout'", _WAIT)):
            values = {"names": list(LIMITS), "value": value}
            model.Session.execute(sa.text(off + statement), values)

    def before(self, things: Iterable[tuple[str, str]]) -> list[Thing | None]:
        """What there is of each (kind, id) now; nobody changes it until the end."""
        found = []
        for kind, id in things:
            if kind not in ACTIONS:
                found.append(None)
                continue
            table = _TABLES.get(kind, "user")
            lock = f'SELECT id FROM public."{table}" WHERE id = :id FOR UPDATE'  # noqa: S608
            model.Session.execute(sa.text(lock), {"id": id})
            found.append(read(kind, id, self._options, self._tables))
        return found

    def taken(self, things: Sequence[Thing]) -> list[str]:
        """What of the things belongs to others now, a sentence for each."""
        found = []
        for thing in things:
            table = _TABLES.get(thing.kind, "user")
            who = (
                f'SELECT id, state FROM public."{table}" WHERE name = :name'  # noqa: S608
                " AND id <> :id"
            )
            values = {"name": thing.name, "id": thing.id}
            for id, state in model.Session.execute(sa.text(who), values):
                deleted = "deleted " if state == "deleted" else ""
                of = "dataset" if thing.kind == "dataset" else "user"
                of = "group or organization" if table == "group" else of
                found.append(
                    f"the name {one_line(thing.name)!r} is taken by another "
                    f"{deleted}{of}, with the id {one_line(id)}: give the one that "
                    "comes back another name, with --as NAME"
                )
            ids = [str(each["id"]) for each in thing.record.get("resources", ())]
            others = model.Session.execute(
                sa.text(
                    "SELECT r.id, p.name FROM public.resource r JOIN public.package p"
                    " ON p.id = package_id WHERE r.id = ANY(:ids) AND p.id <> :id"
                ),
                {"ids": ids, "id": thing.id},
            )
            found += [
                f"the resource {one_line(id)} belongs to the dataset "
                f"{one_line(name)!r} now: delete it there first"
                for id, name in others
            ]
        return found

    def missing(self, things: Sequence[Thing]) -> list[tuple[Thing, Other]]:
        """What things need that neither is there nor comes along."""
        coming = {(each.kind, each.id) for each in things}
        found = []
        for thing in things:
            for other in thing.needs:
                table = _TABLES.get(other[0], "user")
                # who is deleted still has made what he made
                active = "state = 'active'" if table == "group" else "true"
                there = f'SELECT 1 FROM public."{table}" WHERE id = :id AND {active}'  # noqa: S608
                row = model.Session.execute(sa.text(there), {"id": other[1]}).first()
                if row is None and other[:2] not in coming:
                    found.append((thing, other))
        return found

    def without_resource(self, ids: Iterable[str]) -> list[str]:
        """Those ids that no resource has."""
        there = (
            "SELECT id FROM public.resource WHERE id = ANY(:ids) AND state = 'active'"
        )
        rows = model.Session.execute(sa.text(there), {"ids": list(ids)})
        return sorted({*ids} - {id for (id,) in rows})

    def put(self, thing: Thing) -> None:
        """Writes a thing as it was. Raises Refused with CKAN's reasons."""
        record = copy.deepcopy(thing.record)
        record["name"] = thing.name
        # when it changed is when it came back: harvesters ask for that
        record.pop("metadata_modified", None)
        kind = "users" if thing.kind == "user" else f"{thing.kind}s"
        try:
            self._vocabularies(thing, record)
            with _ids_of_then():
                Writes(kind, How(There.CHANGED, odd_ids=True), self._user).one(record)
            self._around(thing)
            model.Session.flush()
        except Exception as error:
            if passes(error):
                raise
            raise Refused(
                f"the {thing.kind} {one_line(thing.name)!r} cannot come back as it "
                f"was: {one_line(reasons(error))}"
            ) from error
        self._note(thing.kind, thing.id)

    def _vocabularies(self, thing: Thing, record: Record) -> None:
        """Makes the vocabularies of its tags that are gone, or takes their heirs.

        CKAN's own action gives a vocabulary no id, so nobody else could make them.
        """
        for each in thing.around.get("vocabulary", ()):
            id, name = each["id"], each["name"]
            if model.Session.get(model.Vocabulary, id):
                continue
            if heir := model.Vocabulary.get(name):
                for tag in record.get("tags", ()):
                    if tag.get("vocabulary_id") == id:
                        tag["vocabulary_id"] = heir.id
                        tag.pop("id", None)
                continue
            made: Any = model.Vocabulary(name)
            made.id = id
            model.Session.add(made)
            model.Session.flush()
            self.warnings.append(
                f"the vocabulary {one_line(name)!r} was gone: it is made again, with "
                "the tags of this dataset only, and `ckan db undo` leaves it there"
            )

    def remove(self, thing: Thing) -> None:
        """Takes away a thing that was not there before. Raises Refused."""
        kind, id = thing.kind, thing.id
        try:
            if kind == "organization" and datasets_of(kind, id):
                raise Refused("it has datasets, which were made since")
            self._note(kind, id)
            with ExitStack() as stack:
                stack.enter_context(apart(model.Session()))
                repo = type(model.repo)
                stack.enter_context(
                    swap(repo, "commit_and_remove", lambda *_: model.Session.flush())
                )
                for name in ("index_remove_package", "index_update_package"):
                    if hasattr(logic, name):  # it is indexed afterwards
                        stack.enter_context(swap(logic, name, lambda *_, **__: None))
                _purge(kind, id, self._user)
        except Exception as error:
            if passes(error):
                raise
            raise Refused(
                f"the {kind} {one_line(thing.name)!r} cannot be taken away again: "
                f"{one_line(reasons(error))}"
            ) from error

    def flag_tables(self, having: dict[str, bool]) -> None:
        """Says of resources, by id, whether they have a DataStore table."""
        for id, has in having.items():
            resource: Any = model.Resource.get(id)
            if resource and bool(resource.extras.get("datastore_active")) != has:
                resource.extras = {**resource.extras, "datastore_active": has}
                self.datasets[resource.package_id] = None
        model.Session.flush()

    def xid(self) -> str:
        """The number of the transaction, by which the server knows its fate."""
        xid = sa.text("SELECT pg_current_xact_id()::text")
        return str(model.Session.execute(xid).scalar())

    def commit(self) -> None:
        """Ends the transaction: from here on all is as it was then."""
        model.Session.commit()

    def rollback(self) -> None:
        """Ends it with nothing done."""
        model.Session.rollback()

    def _note(self, kind: str, id: str) -> None:
        """What is to be indexed: who is in a group shows the group's name."""
        ids = [id] if kind == "dataset" else []
        if kind in ("organization", "group"):
            ids = datasets_of(kind, id)
        self.datasets.update(dict.fromkeys(ids))

    # -- what the actions do not write

    def _around(self, thing: Thing) -> None:
        own = {"dataset": model.Package, "user": model.User}.get(
            thing.kind, model.Group
        )
        entity: Any = model.Session.get(own, thing.id)
        values: Record = thing.around.get(own.__name__.lower(), {})
        for key, value in values.items():
            mapped: Any = sa.inspect(own)
            column = mapped.columns[key]
            setattr(entity, key, _as_column(column, value))
        if thing.kind == "dataset":
            self._times(thing)
            self._views(thing)
            self._rows(thing, model.PackageMember, {"package_id": thing.id}, "user_id")
        elif thing.kind == "user":
            self._rows(thing, model.PackageMember, {"user_id": thing.id}, "package_id")
            key = {"table_id": thing.id, "table_name": "user"}
            self._members(thing.around.get("member", ()), key, "group_id", model.Group)
        else:
            members = thing.around.get("member", ())
            for name, kind in (("user", model.User), ("package", model.Package)):
                if name == "package" and thing.kind == "organization":
                    continue
                key = {"group_id": thing.id, "table_name": name}
                rows = [each for each in members if each["table_name"] == name]
                self._members(rows, key, "table_id", kind)

    def _times(self, thing: Thing) -> None:
        for row in thing.record.get("resources", ()):
            resource: Any = model.Session.get(model.Resource, row["id"])
            for key in ("created", "metadata_modified"):
                if resource is not None and row.get(key):
                    column = model.resource_table.c[key]
                    setattr(resource, key, _as_column(column, row[key]))

    def _views(self, thing: Thing) -> None:
        ids = [each["id"] for each in thing.record.get("resources", ())]
        view = model.ResourceView
        for each in model.Session.query(view).filter(view.resource_id.in_(ids)):
            model.Session.delete(each)
        model.Session.flush()
        for row in thing.around.get("resource_view", ()):
            if row["resource_id"] not in ids:
                continue
            row = dict(row)
            if model.Session.get(view, row["id"]) is not None:
                row.pop("id")  # another's now
            model.Session.add(view(**row))

    def _rows(self, thing: Thing, kind: Any, own: Record, other: str) -> None:
        """Makes the collaborators those of then, as far as both are there."""
        wanted = {e[other]: e["capacity"] for e in thing.around["package_member"]}
        there = _existing(wanted, model.User if other == "user_id" else model.Package)
        for each in model.Session.query(kind).filter_by(**own):
            if getattr(each, other) not in there:
                model.Session.delete(each)
            else:
                each.capacity = wanted[getattr(each, other)]
                there.discard(getattr(each, other))
        for id in sorted(there):
            model.Session.add(kind(**own, **{other: id}, capacity=wanted[id]))

    def _members(
        self, rows: Iterable[Record], own: Record, other: str, kind: Any
    ) -> None:
        """The same of members of a group, of which those that go are deleted ones."""
        wanted = {each[other]: each["capacity"] for each in rows}
        there = _existing(wanted, kind)
        for each in model.Session.query(model.Member).filter_by(**own):
            id = getattr(each, other)
            if id in there:
                each.state, each.capacity = "active", wanted[id]
                there.discard(id)
            elif each.state == "active":
                each.state = "deleted"
        for id in sorted(there):
            values = {**own, other: id, "capacity": wanted[id], "state": "active"}
            model.Session.add(model.Member(**values))


@contextmanager
def _ids_of_then() -> Iterator[None]:
    """Inside, ids need not be UUIDs: some portals have others, of older CKANs.

    They are of letters that can be no path.
    """
    known = getattr(logic, "_validators_cache", {})
    before: dict[str, Any] = {}
    for name in ("uuid_validator", "resource_id_validator"):
        with suppress(logic.UnknownValidator):
            before[name] = logic.get_validator(name)

    def lets_in(old: Any) -> Any:
        def validate(value: Any) -> Any:
            own = isinstance(value, str) and _OLD_ID.fullmatch(value)
            return value if own else old(value)

        return validate

    replaced = {name: old for name, old in before.items() if name in known}
    known.update({name: lets_in(old) for name, old in replaced.items()})
    try:
        yield
    finally:
        known.update(replaced)


def _existing(ids: Iterable[str], kind: Any) -> set[str]:
    rows = model.Session.query(kind.id).filter(kind.id.in_(list(ids)))
    return {id for (id,) in rows}


def _as_column(column: Any, value: Any) -> Any:
    """A value of JSON as a column holds it."""
    if value is not None and isinstance(column.type, sa.DateTime):
        from datetime import datetime

        return datetime.fromisoformat(value)
    return value


def _purge(kind: str, id: str, user: str) -> None:
    context: Any = {"model": model, "session": model.Session, "user": user}
    context |= {"ignore_auth": True, "defer_commit": True}
    if kind != "user":
        collaborators = model.Session.query(model.PackageMember)
        if kind == "dataset":  # which core's own action does not take away
            collaborators.filter_by(package_id=id).delete()
        logic.get_action(f"{kind}_purge")(context, {"id": id})
        return
    member = model.Session.query(model.Member)
    member.filter_by(table_id=id, table_name="user").delete()
    model.Session.query(model.PackageMember).filter_by(user_id=id).delete()
    model.Session.delete(model.User.get(id))
    model.Session.flush()
