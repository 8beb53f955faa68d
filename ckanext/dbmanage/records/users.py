"""What `user_show` gives, for a whole batch at a time."""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from ckan import model

from .kinds import Record, Shown
from .rows import LONG_USERS, portions
from .swaps import swap


class Users:
    """Users as `user_show` gives them to a sysadmin."""

    def __init__(self, show: Callable[[str], Record], sysadmin: str) -> None:
        self._show = show
        self._sysadmin = model.User.get(sysadmin)
        self._entities: dict[str, model.User] = {}
        self._counts: dict[str, int] = {}

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Inside, the action reads from here; everything is as before afterwards."""
        with (
            swap(model.User, "get", self._get),
            swap(model.User, "number_created_packages", self._count),
        ):
            yield

    def show(self, batch: Sequence[tuple[str, str]]) -> Iterator[Shown]:
        """For each (id, anything) what gives its user."""
        for part in portions(batch, LONG_USERS):
            yield from self._show_part([each for each, _ in part])

    def _show_part(self, ids: list[str]) -> Iterator[Shown]:
        query = model.Session.query(model.User).filter(model.User.id.in_(ids))
        self._entities = {user.id: user for user in query}
        package = model.package_table.c
        rows = model.Session.execute(
            sa.select(package.creator_user_id, sa.func.count())
            .where(package.creator_user_id.in_(ids), package.state != "deleted")
            .group_by(package.creator_user_id)
        )
        self._counts = dict.fromkeys(ids, 0) | {row[0]: row[1] for row in rows}
        for user in ids:
            yield False, functools.partial(self._show, user)
        for user in self._entities.values():
            model.Session.expunge(user)

    def _get(self, before: Any, reference: Any) -> Any:
        if self._sysadmin is not None and reference == self._sysadmin.name:
            return self._sysadmin
        return self._entities.get(reference) or before(reference)

    def _count(
        self, before: Any, user: Any, include_private_and_draft: bool = False
    ) -> int:
        if include_private_and_draft and user.id in self._counts:
            return self._counts[user.id]
        return before(user, include_private_and_draft)
