"""Rights are read from an archive, and never run as they stand."""

from __future__ import annotations

from ckanext.dbmanage.engine.archive import rights
from ckanext.dbmanage.engine.archive.contents import Entry


def test_rights_are_read_and_never_run_as_they_stand() -> None:
    def read(statement: str) -> list[str]:
        entry = Entry(1, "ACL", "public", "TABLE t", "o", statement, "")
        return [right.sql() for right in rights.read(entry)]

    assert read(
        'REVOKE ALL ON TABLE public."a;b TO x" FROM "o""x";\n'
        'GRANT SELECT("a,b"),UPDATE(c) ON TABLE t TO "user" WITH GRANT OPTION;\n'
        "SET SESSION AUTHORIZATION a;\nGRANT ALL ON FUNCTION f(integer, text[]) TO PUBLIC;\n"
        "RESET SESSION AUTHORIZATION;\n"
        "ALTER DEFAULT PRIVILEGES FOR ROLE o IN SCHEMA s GRANT SELECT ON TABLES  TO r;"
    ) == [
        'REVOKE ALL ON TABLE public."a;b TO x" FROM "o""x"',
        'GRANT SELECT("a,b") ON TABLE t TO "user" WITH GRANT OPTION',
        'GRANT UPDATE(c) ON TABLE t TO "user" WITH GRANT OPTION',
        'SET ROLE "a"; GRANT ALL ON FUNCTION f(integer, text[]) TO PUBLIC; RESET ROLE',
        'ALTER DEFAULT PRIVILEGES FOR ROLE o IN SCHEMA s GRANT SELECT ON TABLES  TO "r"',
    ]
    for hostile in (
        "GRANT ckan_default TO stranger;",
        "GRANT ALL ON DATABASE ckan_default TO stranger;",
        'GRANT SELECT ON TABLE t TO "PUBLIC";',
        "GRANT SELECT ON TABLE x'\"' ; COMMIT; DROP DATABASE y; '\"' TO z;",
        'GRANT SELECT ON TABLE x/*"*/; COMMIT; DROP DATABASE y; /*"*/ TO z;',
        'GRANT SELECT ON TABLE x $$"$$; COMMIT; DROP DATABASE y; $$"$$ TO z;',
        'GRANT SELECT ON TABLE x -- "\n; DROP DATABASE y; -- "\n TO z;',
        "DROP DATABASE y;",
        "GRANT SELECT ON " + "A ON " * 100_000 + '"' * 99_999,
        "GRANT SELECT ON TABLE " + '""' * 100_000 + "'",
    ):
        assert read(hostile) == [], hostile[:100]
