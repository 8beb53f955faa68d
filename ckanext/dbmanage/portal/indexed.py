"""What the index of a backup tells of: CKAN's records, by the tables they are in.

Of people nothing but their names: no e-mail, no hash of a password. What tells a newer
state where no time does is a fingerprint, from which nobody learns what it is made of.
Whoever changes what goes into one makes all records look changed: raise `FORMAT` then.
"""

from ..engine.site import Indexed


def _fingerprint(*columns: str) -> str:
    text = f"concat_ws(chr(31), {', '.join(columns)})"
    return f"left(encode(sha256(convert_to({text}, 'UTF8')), 'hex'), 32)"


_GROUP = _fingerprint("name", "title", "description", "image_url")
_USER = _fingerprint("name", "fullname", "email", "about", "password", "sysadmin::text")


def _groups(kind: str, where: str) -> Indexed:
    select = (
        f"SELECT id, name, title, state, NULL AS owner, NULL AS modified, {_GROUP}"  # noqa: S608
        f' AS hash FROM public."group" WHERE {where}'
    )
    return Indexed(kind, "group", select)


#: by part, in the order of the index
INDEXED = {
    "database": (
        Indexed(
            "dataset",
            "package",
            "SELECT id, name, title, state, owner_org AS owner,"
            " metadata_modified AS modified, NULL AS hash FROM public.package",
        ),
        _groups("organization", "is_organization"),
        _groups("group", "NOT is_organization"),
        Indexed(
            "user",
            "user",
            "SELECT id, name, fullname AS title, state, NULL AS owner,"  # noqa: S608
            f' NULL AS modified, {_USER} AS hash FROM public."user"',
        ),
        Indexed(
            "resource",
            "resource",
            "SELECT id, name, NULL AS title, state, package_id AS owner,"
            " metadata_modified AS modified, NULL AS hash FROM public.resource",
        ),
    ),
    "datastore": (
        Indexed(
            "table",
            "",
            "SELECT relname AS id, relname AS name, NULL AS title, NULL AS state,"
            " NULL AS owner, NULL AS modified, NULL AS hash FROM pg_class"
            " WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
            " AND relname !~ '^_'",
            rows=True,
        ),
    ),
}
#: what somebody may ask for the history of
KINDS = tuple(each.kind for part in INDEXED.values() for each in part)
