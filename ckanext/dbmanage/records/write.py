"""Records are written by CKAN's own actions, a batch at a time.

In a process of its own. A batch is one transaction, and each record in it stands for
itself: what CKAN refuses takes nothing else with it.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import sqlalchemy as sa
from ckan import logic, model
from ckan import plugins as p
from ckan.lib import search, signals

from ..engine.errors import summary_of
from ..engine.postgres.again import passes
from . import validation
from .incoming import TREES, Unfit, each_of, name_in, references, understood
from .kinds import Record
from .swaps import plugins_overriding, swap

#: what CKAN's actions call these kinds
_ACTIONS = {
    "datasets": "package",
    "organizations": "organization",
    "groups": "group",
    "users": "user",
}
#: hooks that may tell others of what is not committed yet, such as jobs
_HOOKS = (
    (p.IPackageController, ("create", "edit")),
    (p.IPackageController, ("after_dataset_create", "after_dataset_update")),
    (p.IGroupController, ("create", "edit")),
    (p.IOrganizationController, ("create", "edit")),
    (p.IDomainObjectModification, ("notify",)),
    (p.IResourceUrlChange, ("notify",)),
)
#: letters of a reason, at most
_MOST = 1000
#: CKAN wants a hash of each new user's; this one is taken back
_NONE = "!"
#: what CKAN would take for something to do beside
_ORDERS = ("with_apitoken", "image_upload", "clear_upload")
_RELATIONSHIPS = ("relationships_as_subject", "relationships_as_object")

#: number, content, and why it is refused, empty where nothing is known against it
Given = tuple[int, bytes, str]


class There(Enum):
    """What becomes of a line whose record is there already."""

    REFUSED = "refused"
    CHANGED = "changed"
    LEFT = "left"
    RESUMED = "resumed"  # left where id and name are the same, else refused


@dataclass(frozen=True)
class How:
    """How records are imported; `dry` writes nothing."""

    there: There = There.REFUSED
    dry: bool = False


@dataclass
class Written:
    """What became of lines; of those `refused` the number, the name, and why.

    `sysadmins` are names; `relationships` how many were left out.
    """

    created: int = 0
    changed: int = 0
    left: int = 0
    refused: list[tuple[int, str, str]] = field(default_factory=list)
    sysadmins: list[str] = field(default_factory=list)
    relationships: int = 0

    def add(self, other: "Written") -> None:
        """Counts these too; the refused are told one by one, and not held."""
        self.created += other.created
        self.changed += other.changed
        self.left += other.left
        self.sysadmins += other.sysadmins
        self.relationships += other.relationships


class _Ended(Exception):
    """Somebody ended the transaction that a batch is in."""


@dataclass(frozen=True)
class _Known:
    """A row with an id or a name that a line has too."""

    kind: str
    id: str
    name: str
    modified: str


class Writes:
    """Writes the records of one kind, as the sysadmin of this name."""

    def __init__(self, kind: str, how: How, sysadmin: str) -> None:
        self._kind, self._how, self._user = kind, how, sysadmin
        self._action = _ACTIONS[kind]
        self._alone = self._tells_others()

    def __call__(self, batch: Sequence[Given]) -> Written:
        """Writes the records of these lines."""
        if not self._alone:
            try:
                return self._batch(batch)
            except _Ended:  # nothing of it is there
                self._alone = True
        done = Written()
        for each in batch:
            one = self._batch([each])
            done.add(one)
            done.refused += one.refused
        return done

    def one(self, record: Record) -> Written:
        """Writes one record into the open transaction, which its caller ends.

        Inside `quicker`. Raises Unfit, and what CKAN does.
        """
        with apart(model.Session()):
            return self._one(record, _known([record]))

    def _batch(self, batch: Sequence[Given]) -> Written:
        done, session = Written(), model.Session()
        with quicker(self._user):
            records = list(self._understood(batch, done))
            known = _known([record for _, record in records])
            outer = session.connection().get_transaction()
            for number, record in records:
                try:
                    with apart(session):
                        one = self._one(record, known)
                except Exception as error:
                    if passes(error):  # no fault of the record's
                        raise
                    if outer is None or not outer.is_active:
                        session.close()
                        if len(batch) > 1:
                            raise _Ended from error
                        error = Unfit("a plugin ended the transaction")
                    done.refused.append((number, name_in(record), reasons(error)))
                else:
                    done.add(one)
            if not self._how.dry:
                session.commit()
            elif self._kind not in TREES:  # whose children need them
                session.rollback()
            session.expunge_all()
        return done

    def _understood(
        self, batch: Sequence[Given], done: Written
    ) -> Iterator[tuple[int, Record]]:
        for number, content, against in batch:
            record: Record = {"name": ""}
            try:
                record = understood(content)
                if against:
                    raise Unfit(against)
            except Unfit as error:
                done.refused.append((number, name_in(record), str(error)))
            else:
                yield number, record

    def _one(self, record: Record, known: list[_Known]) -> Written:
        """Writes a record; what was done. Raises Unfit, and what CKAN does."""
        there = self._find(record, known)
        if there is not None and self._is_left(record, there):
            return Written(left=1)
        self._refuse_orphan(record)
        done = Written(created=there is None, changed=there is not None)
        done.relationships = self._prepare(record, there)
        context: Any = {"model": model, "session": model.Session, "user": self._user}
        context |= {"ignore_auth": True, "defer_commit": True}
        if self._kind == "datasets":  # of groups the stream of activities wants more
            context["return_id_only"] = True
        verb = "create" if there is None else "update"
        parents = self._later(record) if there is None else []
        logic.get_action(f"{self._action}_{verb}")(context, record)
        for parent in parents:
            own: Any = {"user": self._user, "ignore_auth": True, "defer_commit": True}
            logic.get_action("member_create")(own, {"id": record["id"], **parent})
        if self._kind == "users":
            if there is None and not record.get("password"):
                self._take_password(record)
            if record.get("sysadmin"):
                done.sysadmins.append(name_in(record))
        return done

    def _find(self, record: Record, known: list[_Known]) -> _Known | None:
        """The record as it is there, by id, then by name. Raises Unfit."""
        id, name = record.get("id"), record.get("name")
        for each in known:
            if id and each.id == id and each.kind != self._kind:
                raise Unfit(f"has the id of {_called(each)}")
        for key, value in (("id", id), ("name", name)):
            for each in known:
                if value and getattr(each, key) == value:
                    if each.kind == self._kind:
                        return each
                    if {each.kind, self._kind} == set(TREES):
                        raise Unfit(f"has the name of {_called(each)}")
        return None

    def _is_left(self, record: Record, there: _Known) -> bool:
        how = self._how.there
        if how is There.CHANGED:
            return False
        if how is There.LEFT:
            return True
        id, name = record.get("id") or there.id, record.get("name") or there.name
        same = (id, name) == (there.id, there.name)
        if how is There.RESUMED and same:
            return True
        other = "" if same else f", as {_called(there)} with the id {there.id}"
        raise Unfit(f"is there already{other}")

    def _refuse_orphan(self, record: Record) -> None:
        """Raises Unfit where CKAN would leave out a group that is not there."""
        wanted = references(record)
        if not wanted:
            return
        group = model.group_table.c
        rows = model.Session.execute(
            sa.select(group.id, group.name).where(
                group.id.in_(wanted) | group.name.in_(wanted)
            )
        )
        missing = set(wanted) - {value for row in rows for value in row}
        if missing:
            what = "its parent" if self._kind in TREES else "its group"
            named = {
                each.get("id"): each.get("name") for each in each_of(record, "groups")
            }
            names = sorted(str(named.get(each) or each) for each in missing)
            raise Unfit(f"{what} is not there: {', '.join(names)}")

    def _prepare(self, record: Record, there: _Known | None) -> int:
        """Takes out what CKAN would misread; how many relationships that were."""
        dropped = sum(len(list(each_of(record, key))) for key in _RELATIONSHIPS)
        if self._kind == "datasets":
            for key in _RELATIONSHIPS:
                record.pop(key, None)
        elif self._kind in TREES:
            # the datasets say which groups they are in, and come later
            record.pop("packages", None)
        elif not record.get("password_hash"):
            record.pop("password_hash", None)
            if there is None and not record.get("password"):
                record["password_hash"] = _NONE
        for key in _ORDERS:
            record.pop(key, None)
        if there is not None:
            record["id"] = there.id
            # else the index would not see that it has changed
            if record.get("metadata_modified") == there.modified:
                record.pop("metadata_modified", None)
        return dropped if self._kind == "datasets" else 0

    def _later(self, record: Record) -> list[Record]:
        """Takes out the parents of a new record with an id, whom CKAN cannot check."""
        if self._kind not in TREES or not record.get("id"):
            return []
        found = [
            {
                "object": each.get("id") or each.get("name"),
                "object_type": "group",
                "capacity": each.get("capacity") or "public",
            }
            for each in each_of(record, "groups")
        ]
        record.pop("groups", None)
        return found

    def _take_password(self, record: Record) -> None:
        """Leaves a user without a password, where none was given."""
        if record.get("password_hash") == _NONE:
            user: Any = model.User.get(record["name"])
            user._password = None
            model.Session.flush()

    def _tells_others(self) -> bool:
        """Whether a plugin may act outside the database upon a record."""
        for interface, hooks in _HOOKS:
            for hook in hooks:
                for plugin in plugins_overriding(interface, hook):
                    if not isinstance(plugin, _SEARCH):
                        return True
        for verb in ("create", "update"):
            action = f"{self._action}_{verb}"
            function = getattr(logic.get_action(action), "__wrapped__", None)
            if not getattr(function, "__module__", "").startswith("ckan.logic.action"):
                return True
            for receiver in signals.action_succeeded.receivers_for(action):
                module = getattr(receiver, "__module__", "") or ""
                if not module.startswith("ckanext.activity."):
                    return True
        return False


#: what indexes each dataset at once, before CKAN 2.12
_SEARCH: Any = getattr(search, "SynchronousSearchPlugin", ())


def _called(there: _Known) -> str:
    return f"the {there.kind.removesuffix('s')} {there.name!r}"


@contextmanager
def quicker(name: str) -> Iterator[None]:
    """Inside, CKAN validates faster, indexes nothing, asks the index for nothing, for
    that does not know yet what is written, and asks for the user of this name once.
    """
    user = model.User.get(name)

    def get(before: Any, reference: Any) -> Any:
        known = reference == name and user in model.Session
        return user if known else before(reference)

    def show(_: Any, reference: str) -> Any:
        raise search.SearchError(f"{reference} is read from the database")

    with ExitStack() as stack:
        stack.enter_context(validation.faster())
        stack.enter_context(swap(model.User, "get", get))
        stack.enter_context(swap(search, "show", show))
        if _SEARCH:
            stack.enter_context(swap(_SEARCH, "notify", lambda *_: None))
        yield


@contextmanager
def apart(session: Any) -> Iterator[None]:
    """Inside is a record for itself: what it commits is flushed, and what it turns back
    is what is inside."""
    nested = session.begin_nested()
    # CKAN's actions turn back the whole transaction before they refuse something
    session.commit, session.rollback = session.flush, lambda: None
    try:
        with nested:
            yield
            session.flush()
            ended = not nested.is_active
        if ended:
            raise _Ended
    finally:
        del session.commit, session.rollback


def _known(records: Sequence[Record]) -> list[_Known]:
    """The rows of any kind that have one of these ids or names."""
    values = {
        "ids": [each["id"] for each in records if each.get("id")],
        "names": [each["name"] for each in records if each.get("name")],
    }
    rows = model.Session.execute(_KNOWN, values)
    return [
        _Known(kind, id, name or "", time.isoformat() if time else "")
        for kind, id, name, time in rows
    ]


_KNOWN = sa.text("""
SELECT 'datasets', id, name, metadata_modified FROM package
  WHERE id = ANY(:ids) OR name = ANY(:names)
UNION ALL SELECT CASE WHEN is_organization THEN 'organizations' ELSE 'groups' END,
  id, name, NULL FROM "group" WHERE id = ANY(:ids) OR name = ANY(:names)
UNION ALL SELECT 'users', id, name, NULL FROM "user"
  WHERE id = ANY(:ids) OR name = ANY(:names)
UNION ALL SELECT 'resources', id, name, NULL FROM resource WHERE id = ANY(:ids)
""")


def reasons(error: BaseException) -> str:
    """Why a record is refused: each field with what CKAN says of it."""
    if isinstance(error, Unfit):
        return str(error)
    found = getattr(error, "error_dict", None)
    text = ""
    if isinstance(found, dict):
        with suppress(RecursionError):
            text = "; ".join(_by_field(found, ""))
    text = text or summary_of(error)
    return text if len(text) < _MOST else f"{text[:_MOST]} …"


def _by_field(found: Any, path: str) -> Iterator[str]:
    if isinstance(found, dict):
        for key, value in found.items():
            yield from _by_field(value, f"{path}.{key}" if path else str(key))
    elif isinstance(found, list) and any(isinstance(e, (dict, list)) for e in found):
        for number, value in enumerate(found, 1):
            yield from _by_field(value, f"{path} {number}")
    elif found:
        said = found if isinstance(found, list) else [found]
        yield f"{path}: {' '.join(map(str, said))}"
