"""Relationships between datasets, which are made when all datasets are there."""

from collections.abc import Iterable
from typing import Any

from ckan import logic, model

from ..engine.postgres.again import passes
from .incoming import Relationship
from .reasons import reasons
from .write import quicker


def relate(found: Iterable[Relationship], user: str) -> dict[Relationship, str]:
    """Makes relationships as this sysadmin; why which could not be made."""
    refused = {}
    create = logic.get_action("package_relationship_create")
    for each in found:
        context: Any = {"user": user, "ignore_auth": True, "defer_commit": True}
        try:
            with quicker(user):
                create(context, each._asdict())
                model.Session.commit()
        except Exception as error:
            model.Session.rollback()
            if passes(error):  # no fault of its own
                raise
            refused[each] = reasons(error)
    model.Session.remove()
    return refused
