"""What the database would answer, known before it is asked.

CKAN asks some thirty questions for each new dataset, most of them whether something is
there that cannot be. One look at the database for a batch answers them: a question for
a value that no row has finds nothing, one for a row whose object is at hand finds that.
Every other question goes to the database. Knows SQLAlchemy and CKAN's models, and
nothing of how records are written.
"""

from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from ckan import model
from sqlalchemy import event, orm
from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData
from sqlalchemy.sql import elements, operators, selectable

#: the column that a question compares, as `table.column`, and the value; no column
#: where a condition is another one
Condition = tuple[str, Any]
#: rows; None where it is not known
Rows = list[tuple[Any]] | None

#: where SQLAlchemy keeps what else a question is about
_OF_OTHERS = ("_setup_joins", "_legacy_setup_joins", "_from_obj", "_having_criteria")


class Answers:
    """Answers to what a session asks inside of `given`.

    `unsure` is whether it has asked for something that is not known here; `attached`
    are the objects of the record that is made.
    """

    unsure = False

    def __init__(self) -> None:
        self._absent: dict[str, set[Any]] = {}
        self._there: dict[tuple[str, Any], Any] = {}
        self._tags: dict[tuple[str, str | None], Any] = {}
        self.attached: list[Any] = []
        self._flushed: dict[tuple[Any, Any], Any] = {}

    def no_row(self, columns: Iterable[str], values: Iterable[Any]) -> None:
        """Notes that no row has one of these values in one of these columns."""
        for column in columns:
            self._absent.setdefault(column, set()).update(values)

    def know(self, found: Iterable[Any]) -> None:
        """Keeps objects that have an id and a name which no other has."""
        for each in found:
            table = _table_of(type(each))
            self._there[f"{table}.id", each.id] = each
            self._there[f"{table}.name", each.name] = each

    def know_tags(self, found: Iterable[Any]) -> None:
        """Keeps tags, whose names are theirs in a vocabulary only."""
        self._tags = {(each.name, each.vocabulary_id): each for each in found}

    def begin(self) -> None:
        """From now on another record is made."""
        self.attached, self._flushed = [], {}

    def flush(self, **_: Any) -> None:
        """The record's objects are looked up from now on as if they were stored."""
        for each in self.attached:
            self._flushed[type(each), getattr(each, "id", None)] = each

    @contextmanager
    def given(self, session: Any) -> Iterator[None]:
        """Inside, the session is answered from here where that can be."""

        def attached(_: Any, instance: Any) -> None:
            self.attached.append(instance)

        listeners = (("do_orm_execute", self._execute), ("after_attach", attached))
        for name, listener in listeners:
            event.listen(session, name, listener)
        try:
            yield
        finally:
            for name, listener in listeners:
                event.remove(session, name, listener)

    def _execute(self, asked: Any) -> Any:
        """SQLAlchemy takes what is returned for the result; None is none."""
        if asked.is_column_load:  # of a row that is stored: as it stands there
            return None
        rows, is_entity = None, False
        if asked.is_select and isinstance(asked.statement, sa.sql.Select):
            rows, is_entity = self._answer(asked)
        if rows is None:
            self.unsure = True
            return None
        result = IteratorResult(SimpleResultMetaData(["found"]), iter(rows))
        if is_entity:
            result._attributes = result._attributes.union({"is_single_entity": True})
        return result

    def _answer(self, asked: Any) -> tuple[Rows, bool]:
        statement = asked.statement
        (column, *others) = statement.column_descriptions
        wanted = column["expr"]
        if isinstance(wanted, selectable.Exists):
            inner: Any = wanted
            while not isinstance(inner, sa.sql.Select):
                inner = inner.element
            known = self._none(list(_conditions(inner, {})))
            return [(False,)] if known and not others else None, False
        conditions = list(_conditions(statement, asked.parameters or {}))
        if others or wanted is not column.get("entity"):
            plain = all(
                isinstance(each["expr"], orm.attributes.QueryableAttribute)
                for each in (column, *others)
            )
            return [] if plain and self._none(conditions) else None, False
        if not any(getattr(statement, name, ()) for name in _OF_OTHERS):
            found = self._object(asked.session, wanted, conditions)
            if found is not None:
                return [(found,)], True
        return [] if self._none(conditions) else None, True

    def _none(self, conditions: list[Condition]) -> bool:
        """Whether no row has what is asked for, all of which a row must have."""
        return any(
            value in self._absent.get(column, ()) for column, value in conditions
        )

    def _object(
        self, session: Any, entity: Any, conditions: list[Condition]
    ) -> Any | None:
        """The object that is asked for by what no other has."""
        if entity is model.Tag:
            asked = dict(conditions)
            if asked.keys() == {"tag.name", "tag.vocabulary_id"}:
                return self._tags.get((asked["tag.name"], asked["tag.vocabulary_id"]))
        if len(conditions) != 1:
            return None
        ((column, value),) = conditions
        if (found := self._there.get((column, value))) is not None:
            return found
        if column != f"{_table_of(entity)}.id":
            return None
        at_hand = session.identity_map.get(orm.util.identity_key(entity, (value,)))
        return self._flushed.get((entity, value)) or at_hand


def _table_of(entity: Any) -> str:
    table: Any = orm.class_mapper(entity).local_table
    return table.name


def _conditions(statement: Any, parameters: Any) -> Iterator[Condition]:
    clause = statement.whereclause
    if clause is None:
        return
    parts = [clause]
    if isinstance(clause, elements.BooleanClauseList):
        parts = clause.clauses if clause.operator is operators.and_ else []
    for part in parts:
        column: Any = getattr(part, "left", None)
        value: Any = getattr(part, "right", None)
        compared = getattr(part, "operator", None)
        name = ""
        if isinstance(table := getattr(column, "table", None), sa.Table):
            name = f"{table.name}.{column.name}"
        if compared is operators.eq and isinstance(value, elements.BindParameter):
            wanted = parameters.get(value.key, value.effective_value)
            yield (name, wanted) if isinstance(wanted, Hashable) else ("", None)
        elif compared is operators.is_ and isinstance(value, elements.Null):
            yield name, None
        else:
            yield "", None
