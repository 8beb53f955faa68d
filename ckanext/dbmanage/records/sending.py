"""New datasets are sent to the search index by the process that has written them.

It is an offer: what is not sent, for whatever reason, is found when all are compared.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from ckan import model

from ..portal.config import Options
from .documents import Writer
from .search_index import Index


class Sending:
    """Sends datasets to the index, without a commit; until that fails once."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._writer: Writer | None = None
        self._failed = False

    def __call__(self, ids: Sequence[str]) -> int:
        """Sends these datasets, which are committed; how many were sent."""
        if self._failed or not ids:
            return 0
        try:
            self._writer = self._writer or Writer(self._options, False)
            belongs = Index(self._options).belongs
            found = model.Session.execute(
                sa.text(f"SELECT id FROM package WHERE id = ANY(:ids) AND {belongs}"),  # noqa: S608
                {"ids": list(ids)},
            )
            sent, *_ = self._writer([(id, "") for (id,) in found])
            return sent
        except Exception:  # what it was, the comparison says
            self._failed = True
            return 0
        finally:
            model.Session.rollback()
