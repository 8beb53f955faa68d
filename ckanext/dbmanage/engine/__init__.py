"""The engine: PostgreSQL databases and backups, and nothing of CKAN, Flask or click.

What it needs to know of the site it is handed as a `Site`; what has to be done with
CKAN's help it is handed as a callable. `tests/test_layers.py` enforces the rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .postgres import Database

#: told of what goes on: phase, bytes done, bytes expected (0 when nobody knows)
Progress = Callable[[str, int, int], None]
#: told of what the operator should read, one sentence at a time
Warn = Callable[[str], None]


@dataclass(frozen=True)
class Site:
    """What the engine knows of a site.

    `databases` by part (`database`, `datastore`); `secrets` are the site's effective
    secret, then the older ones it still accepts, the first signs and all verify;
    `heads` the alembic revisions of the installed code by version table.
    """

    id: str
    url: str
    repository: str
    databases: Mapping[str, Database]
    secrets: tuple[str, ...] = field(repr=False)
    token_secret: str = field(repr=False, default="")
    versions: Mapping[str, object] = field(default_factory=dict)
    heads: Mapping[str, frozenset[str]] = field(default_factory=dict)
    pg_bin: str = ""
    jobs: int = 2
    scratch_template: str = ""
