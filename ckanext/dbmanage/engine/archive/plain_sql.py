"""Plain SQL, which is never run here: how to make an archive of it by hand."""

import re
import shlex
from pathlib import Path

from ..report import name_of

#: as pg_dump and people write its first words
_FIRST = re.compile(
    rb"\s*(--|/\*|\\|(SET|CREATE|BEGIN|SELECT|DROP|ALTER|COPY)\b)", re.IGNORECASE
)
#: lines about other roles, and what older servers do not know: each would end it all
_NOT_OURS = (
    "/^(ALTER .* OWNER TO|ALTER DEFAULT PRIVILEGES|GRANT|REVOKE|COMMENT ON EXTENSION"
    "|SET [a-z_]+_timeout) .*;$/d"
)


def begins(head: bytes) -> bool:
    """Whether the first bytes of a file are those of plain SQL."""
    return bool(_FIRST.match(head))


def advice(path: Path, packed: str) -> str:
    r"""Why it is refused, and the commands that make an archive of it.

    No role keeps psql from obeying a `\!`: a user of the system who owns nothing does.
    `packed` is the program that unpacks it, `gzip`, `zstd` or none.
    """
    read = f"{packed} -dc" if packed else "cat"
    return (
        "Only archives of `pg_dump -Fc` are restored: psql, which reads plain SQL, "
        "obeys commands hidden in it (CVE-2025-8714), and a file that was cut looks "
        "whole. Where the database is still there, make an archive of it, with "
        f"`{name_of('command')} dump FILE` or `pg_dump -Fc`. Else make one of this "
        "file, if you trust it: as root, where PostgreSQL runs. What is hidden in it "
        "then runs as the user nobody, in a database of its own:\n"
        "  sudo -u postgres createuser nobody\n"
        "  sudo -u postgres createdb -T template0 -E UTF8 -O nobody from_sql\n"
        f"  {read} {shlex.quote(str(path))} | sed -E '{_NOT_OURS}' |\n"
        "    sudo -u nobody psql -X -q -1 -o /dev/null -v ON_ERROR_STOP=1 from_sql\n"
        "  sudo -u nobody pg_dump -Fc from_sql > from_sql.dump\n"
        "  sudo -u postgres dropdb from_sql\n"
        "  sudo -u postgres dropuser nobody\n"
        f"  {name_of('command')} load from_sql.dump"
    )
