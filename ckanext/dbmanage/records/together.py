"""New datasets of a batch are made all together, and sent to the database at once.

In a process of its own. CKAN's action makes each, as ever; what it asks the database is
answered from one look (`answers.py`), and what it would write waits for the end of the
batch, where a row less is a statement less. The stream of activities is told then. What
that does not do for, such as a question that nobody foresaw or a row that the database
refuses, is for the caller to do one by one.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from ckan import model
from ckan.lib import plugins as forms
from ckan.lib import signals
from sqlalchemy import orm

from . import validation
from .answers import Answers
from .datasets import Datasets
from .incoming import each_of, references
from .kinds import Record
from .swaps import swap

_key = orm.util.identity_key
_OWN = ("package.id", "package.name")
#: columns in which a dataset's id stands
_OF = ("resource.package_id", "member.table_id", "package_extra.package_id")


class Together:
    """Makes the new datasets of a batch inside of `made`, as this user.

    `fits` is whether all came through, `unforeseen` whether CKAN asked for something
    that is not known here.
    """

    fits = unforeseen = False

    def __init__(self, user: str) -> None:
        self._user, self._answers = user, Answers()
        self._shown = Datasets(lambda: {"ignore_auth": True})
        self._told: list[tuple[str, dict[str, Any]]] = []

    def can(self, records: Sequence[Record]) -> bool:
        """Whether nothing has to be stored to know the ids."""
        resources = [e for record in records for e in each_of(record, "resources")]
        ids = [each.get("id") for each in (*records, *resources)]
        texts = [each for each in ids if each and isinstance(each, str)]
        return len(texts) == len(ids) == len(set(texts))

    def begin(self) -> None:
        """From now on another one is made."""
        self._answers.begin()

    def refuse(self) -> None:
        """What was made last is refused: it has to be gone."""
        self.fits = self.fits and not self._answers.attached

    @contextmanager
    def made(self, records: Sequence[Record], end: Callable[[], Any]) -> Iterator[None]:
        """At the end all are stored, and the transaction is ended, where all `fits`.

        Of `records` none is there.
        """
        session: Any = model.Session()
        self._answers, self._told = Answers(), []
        self.fits, self.unforeseen = True, False
        held = self._look(session, records)
        transaction = session.connection().get_transaction()
        with (
            self._answers.given(session),
            self._held_back("package_create") as receivers,
        ):
            # CKAN and its plugins end nothing that is not theirs
            session.flush = session.commit = self._answers.flush
            session.rollback = lambda: None
            try:
                yield
                self.unforeseen = self._answers.unsure
                self.fits = self.fits and not self.unforeseen
                del session.flush
                if self.fits:
                    session.commit = session.flush
                    session.flush()
                    made = [facts["result"] for _, facts in self._told]
                    self._tell(receivers, made)
                    session.flush()
                    keys = [_key(model.Package, (each,)) for each in made]
                    there = all(key in session.identity_map for key in keys)
                    self.fits = there and transaction.is_active
            finally:
                for name in ("flush", "commit", "rollback"):
                    vars(session).pop(name, None)
            if self.fits:
                end()
        del held  # by nobody else

    def _look(self, session: Any, records: Sequence[Record]) -> list[Any]:
        """Learns what CKAN will ask for; the objects that it will get."""
        answers = self._answers
        ids = [record["id"] for record in records]
        answers.no_row(_OWN[:1], ids)
        answers.no_row(_OWN[1:], [each["name"] for each in records if each.get("name")])
        answers.no_row(_OF, ids)
        resources = {e["id"] for each in records for e in each_of(each, "resources")}
        found = sa.select(model.Resource.id).where(model.Resource.id.in_(resources))
        there = {id for (id,) in session.execute(found)}
        answers.no_row(["resource.id", "resource_view.resource_id"], resources - there)
        wanted = {each for record in records for each in references(record)}
        owners = {each.get("owner_org") for each in records}
        wanted |= {each for each in owners if each and isinstance(each, str)}
        group = model.Group
        groups = (
            session.query(group)
            .filter(sa.or_(group.id.in_(wanted), group.name.in_(wanted)))
            .all()
        )
        answers.know(groups)
        answers.no_row(["group.id"], wanted - {each.id for each in groups})
        answers.no_row(["group.name"], wanted - {each.name for each in groups})
        users = [model.User.get(self._user)]
        answers.know(users)
        names = {tag.get("name") for each in records for tag in each_of(each, "tags")}
        names = {each for each in names if isinstance(each, str)}
        tags = session.query(model.Tag).filter(model.Tag.name.in_(names)).all()
        answers.know_tags(tags)
        return [groups, users, tags]

    @contextmanager
    def _held_back(self, action: str) -> Iterator[list[Any]]:
        """Keeps what would be told of an action; yields who is to be told it."""
        succeeded = signals.action_succeeded
        receivers = list(succeeded.receivers_for(action))

        def hold(sender: str, **facts: Any) -> None:
            self._told.append((sender, facts))

        for each in receivers:
            succeeded.disconnect(each, sender=action)
        succeeded.connect(hold, sender=action)
        try:
            yield receivers
        finally:
            succeeded.disconnect(hold, sender=action)
            for each in receivers:
                succeeded.connect(each, sender=action)

    def _tell(self, receivers: list[Any], made: list[str]) -> None:
        if not receivers:
            return
        with self._shown.swapped(), swap(forms, "plugin_validate", _shown):
            for id, shown in self._shown.prefetch(made).items():
                _sort_as_made(shown, model.Package.get(id))
            for sender, facts in self._told:
                for each in receivers:
                    each(sender, **facts)


def _sort_as_made(shown: Record, dataset: Any) -> None:
    """Puts extras in the order that they were given in: the database has its own."""
    if "extras" in model.package_table.c:  # before 2.12 CKAN sorts them
        places = {key: place for place, key in enumerate(dataset.extras)}
        shown["extras"].sort(key=lambda extra: places[extra["key"]])


def _shown(before: Any, form: Any, context: Any, *rest: Any) -> Any:
    """Leaves out what finds errors, where the action throws these away."""
    if rest[-1] != "package_show":
        return before(form, context, *rest)
    context[validation.ONLY_VALUES] = True
    try:
        return before(form, context, *rest)
    finally:
        context.pop(validation.ONLY_VALUES, None)
