"""What a client program says, heard to its end."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from ckanext.dbmanage.engine.errors import ToolFailed
from ckanext.dbmanage.engine.postgres import database
from ckanext.dbmanage.engine.postgres.programs import finish, running
from ckanext.dbmanage.engine.site import Site

from ...support.cluster import PG_BIN
from ...support.server import main


def test_the_first_error_is_told_and_the_middle_left_out(
    site: Site, tmp_path: Path
) -> None:
    file = tmp_path / "x.dump"
    body = "\n".join(f"-- line {number}" for number in range(50))
    with closing(main(site).connect()) as connection:
        database.query(
            connection,
            f"CREATE FUNCTION public.f() RETURNS int AS $$ SELECT 1\n{body} $$ LANGUAGE sql",
        )
        connection.commit()
    target, environment = main(site).program()
    subprocess.run(
        [PG_BIN / "pg_dump", "-Fc", "-f", file, *target], env=environment, check=True
    )
    arguments = [PG_BIN / "pg_restore", "-e", *target, file]
    with (
        pytest.raises(ToolFailed) as failed,
        running(list(map(str, arguments)), environment) as process,
    ):
        finish(process, "loading")
    lines = str(failed.value).splitlines()
    assert lines[0].startswith("loading failed: pg_restore: error: could not execute")
    assert any("lines more" in line for line in lines) and len(lines) < 15
    assert "line 49" in lines[-1]


def test_a_program_with_much_to_say_is_heard_to_its_end() -> None:
    wordy = (
        "import sys; sys.stderr.write('pg_x: error: why\\n' + 'word\\n' * 10**6);"
        "sys.stderr.flush(); print('rows'); sys.exit(1)"
    )
    with (
        pytest.raises(ToolFailed, match="^working failed: pg_x: error: why"),
        running([sys.executable, "-c", wordy], stdout=-1) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.read() == b"rows\n"  # it came to this
        finish(process, "working")
