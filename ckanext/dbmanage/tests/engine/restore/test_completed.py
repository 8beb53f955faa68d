"""What is compared with the archive is all of the copy."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ckanext.dbmanage.engine.errors import ToolFailed
from ckanext.dbmanage.engine.restore.completed import contents_of_copy

from ...support.cluster import PG_BIN, query
from ...support.small import Small


def test_why_a_copy_cannot_be_compared_is_told(small: Callable[..., Small]) -> None:
    made = small()
    query("CREATE TABLE public.closed (x int)", made.name)
    database = made.site.databases["database"]
    with pytest.raises(ToolFailed, match="comparing .* permission denied .* closed"):
        contents_of_copy(database, str(PG_BIN))
