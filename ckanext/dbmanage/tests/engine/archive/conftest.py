"""Databases for archives that reach beyond their own."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import pytest

from ...support.archives import PUBLIC
from ...support.cluster import query


@pytest.fixture
def database() -> Iterator[Callable[..., str]]:
    """Makes empty databases of CKAN's role; their names."""
    made = []

    def make(options: str = "ENCODING 'UTF8'") -> str:
        made.append(name := f"hostile_{secrets.token_hex(4)}")
        query(f"CREATE DATABASE {name} OWNER ckan_default TEMPLATE template0 {options}")
        query(PUBLIC, name)
        return name

    yield make
    for name in made:
        query(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
