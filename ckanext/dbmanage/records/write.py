"""Records are written by CKAN's own actions, a batch at a time.

In a process of its own. A batch is one transaction, and each record in it stands for
itself: what CKAN refuses takes nothing else with it.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from ckan import logic, model
from ckan import plugins as p
from ckan.lib import search, signals
from ckan.logic import validators

from ..engine.postgres.again import passes
from . import validation
from .incoming import (
    SIDES,
    TREES,
    Unfit,
    each_of,
    name_in,
    references,
    refuse_odd_ids,
    understood,
)
from .kinds import Record
from .known import Known, called, groups_of, known_of
from .reasons import reasons
from .sending import Sending
from .swaps import action_within, plugins_overriding, swap
from .together import Together
from .written import Given, How, There, Written

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
#: batches with questions that nobody foresaw, more than others, after which none is
#: made together
_UNFORESEEN = 3
#: CKAN wants a hash of each new user's; this one is taken back
_NONE = "!"
#: what CKAN would take for something to do beside
_ORDERS = ("with_apitoken", "image_upload", "clear_upload")


class _Ended(Exception):
    """Somebody ended the transaction that a batch is in."""


class Writes:
    """Writes the records of one kind, as the sysadmin of this name."""

    def __init__(
        self, kind: str, how: How, sysadmin: str, sending: Sending | None = None
    ) -> None:
        self._kind, self._how, self._user = kind, how, sysadmin
        self._action = _ACTIONS[kind]
        self._alone = self._tells_others()
        self._sending = sending if kind == "datasets" and not how.dry else None
        self._together = Together(sysadmin) if kind == "datasets" else None
        self._unforeseen, self._groups = 0, set[str]()

    def __call__(self, batch: Sequence[Given]) -> Written:
        """Writes the records of these lines, and sends them to the index."""
        done = self._written(batch)
        if self._sending is not None:
            done.indexed = self._sending(done.ids)
        done.ids = []
        return done

    def _written(self, batch: Sequence[Given]) -> Written:
        if not self._alone:
            if (done := self._at_once(batch)) is not None:
                return done
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

    def _at_once(self, batch: Sequence[Given]) -> Written | None:
        """Writes new datasets together; None where that does not do, and nothing is."""
        together, done, session = self._together, Written(), model.Session()
        if together is None or self._alone or self._unforeseen == _UNFORESEEN:
            return None
        with quicker(self._user):
            records = list(self._understood(batch, done))
            known = self._look([record for _, record in records])
            there = {value for each in known for value in (each.id, each.name)}
            new = [e for _, e in records if not {e.get("id"), e.get("name")} & there]
            if self._how.there is There.CHANGED and len(new) < len(records):
                return None
            end = session.rollback if self._how.dry else session.commit
            if not together.can(new):
                return None
            try:
                with together.made(new, end):
                    for number, record in records:
                        together.begin()
                        try:
                            done.add(self._one(record, known))
                        except Exception as error:
                            if passes(error):
                                raise
                            together.refuse()
                            done.refused.append(
                                (number, name_in(record), reasons(error))
                            )
            except Exception as error:
                if passes(error):
                    raise
                together.fits = False  # one by one it is seen whose fault it is
            if not together.fits:
                session.rollback()
            session.expunge_all()
            self._unforeseen += 1 if together.unforeseen else -bool(self._unforeseen)
        return done if together.fits else None

    def one(self, record: Record) -> Written:
        """Writes one record into the open transaction, which its caller ends.

        Inside `quicker`. Raises Unfit, and what CKAN does.
        """
        with apart(model.Session()):
            return self._one(record, self._look([record]))

    def _batch(self, batch: Sequence[Given]) -> Written:
        done, session = Written(), model.Session()
        with quicker(self._user):
            records = list(self._understood(batch, done))
            known = self._look([record for _, record in records])
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

    def _look(self, records: Sequence[Record]) -> list[Known]:
        """The rows that these records may be; and learns which groups are there."""
        if self._kind not in TREES:
            self._groups = groups_of(
                {each for one in records for each in references(one)}
            )
        return known_of(records)

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

    def _one(self, record: Record, known: list[Known]) -> Written:
        """Writes a record; what was done. Raises Unfit, and what CKAN does."""
        there = self._find(record, known)
        if there is not None and self._is_left(record, there):
            return Written(left=1)
        self._refuse_orphan(record)
        if there is None and not (_WANTS_UUIDS or self._how.odd_ids):
            refuse_odd_ids(record)
        done = Written(created=there is None, changed=there is not None)
        self._prepare(record, there)
        context: Any = {"model": model, "session": model.Session, "user": self._user}
        context |= {"ignore_auth": True, "defer_commit": True}
        if self._kind == "datasets":  # of groups the stream of activities wants more
            context["return_id_only"] = True
        verb = "create" if there is None else "update"
        parents = self._later(record) if there is None else []
        made = logic.get_action(f"{self._action}_{verb}")(context, record)
        if self._kind == "datasets":
            done.ids.append(made)
        for parent in parents:
            own: Any = {"user": self._user, "ignore_auth": True, "defer_commit": True}
            logic.get_action("member_create")(own, {"id": record["id"], **parent})
        if self._kind == "users":
            if there is None and not record.get("password"):
                self._take_password(record)
            if record.get("sysadmin"):
                done.sysadmins.append(name_in(record))
        return done

    def _find(self, record: Record, known: list[Known]) -> Known | None:
        """The record as it is there, by id, then by name. Raises Unfit."""
        id, name = record.get("id"), record.get("name")
        for each in known:
            if id and each.id == id and each.kind != self._kind:
                raise Unfit(f"has the id of {called(each)}")
        for key, value in (("id", id), ("name", name)):
            for each in known:
                if value and getattr(each, key) == value:
                    if each.kind == self._kind:
                        return each
                    if {each.kind, self._kind} == set(TREES):
                        raise Unfit(f"has the name of {called(each)}")
        return None

    def _is_left(self, record: Record, there: Known) -> bool:
        how = self._how.there
        if how is There.CHANGED:
            return False
        if how is There.LEFT:
            return True
        id, name = record.get("id") or there.id, record.get("name") or there.name
        same = (id, name) == (there.id, there.name)
        if how is There.RESUMED and same:
            return True
        other = "" if same else f", as {called(there)} with the id {there.id}"
        raise Unfit(f"is there already{other}")

    def _refuse_orphan(self, record: Record) -> None:
        """Raises Unfit where CKAN would leave out a group that is not there."""
        wanted = references(record)
        if not wanted:
            return
        # those that are written meanwhile are there too
        there = groups_of(wanted) if self._kind in TREES else self._groups
        missing = set(wanted) - there
        if missing:
            what = "its parent" if self._kind in TREES else "its group"
            named = {
                each.get("id"): each.get("name") for each in each_of(record, "groups")
            }
            names = sorted(str(named.get(each) or each) for each in missing)
            raise Unfit(f"{what} is not there: {', '.join(names)}")

    def _prepare(self, record: Record, there: Known | None) -> None:
        """Takes out what CKAN would misread."""
        if self._kind == "datasets":
            for key in SIDES:  # made when all datasets are there
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
            function = action_within(action)
            if not getattr(function, "__module__", "").startswith("ckan.logic.action"):
                return True
            for receiver in signals.action_succeeded.receivers_for(action):
                module = getattr(receiver, "__module__", "") or ""
                if not module.startswith("ckanext.activity."):
                    return True
        return False


#: whether CKAN itself refuses other ids; one of before 2.11 does not, and what it took
#: could go nowhere else
_WANTS_UUIDS = hasattr(validators, "uuid_validator")
#: what indexes each dataset at once, before CKAN 2.12
_SEARCH: Any = getattr(search, "SynchronousSearchPlugin", ())


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
