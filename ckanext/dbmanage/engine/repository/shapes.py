"""What the files of a repository say, field by field.

`docs/formats.rst` is written out of this; a test looks at real files. Nothing that is
read is believed for its shape here: `manifest.well_formed` and others look at it.
"""

from __future__ import annotations

from typing import Annotated, TypedDict


class Sized(TypedDict):
    bytes: Annotated[int, "its size"]
    sha256: Annotated[str, "its checksum"]


class Content(Sized, total=False):
    table: Annotated[Sized, "of `records.jsonl.zst`: its table of frames"]


class OfSite(TypedDict):
    id: Annotated[str, "the site's id"]
    url: Annotated[str, "its address"]


class Dump(TypedDict):
    bytes: Annotated[int, "its size, as PostgreSQL's program has written it"]
    stored: Annotated[int, "the size of its pieces in `objects`"]
    added: Annotated[int, "the size of those that no backup had"]


class OfDatabase(TypedDict):
    name: Annotated[str, "the database's name"]
    server_version: Annotated[int, "PostgreSQL's version, as `150018` for 15.18"]
    pg_dump: Annotated[int, "the major version of the program that dumped it"]
    bytes: Annotated[int, "the size of the database"]
    dump: Annotated[Dump, "its dump"]
    locale: Annotated[
        dict[str, object], "its encoding and collation, as `pg_database` has them"
    ]
    migrations: Annotated[
        dict[str, list[str]], "the migrations that were run, by table of Alembic"
    ]
    rows: Annotated[
        dict[str, int], "the exact number of rows, by `schema.table`; same snapshot"
    ]


class _OfUploads(TypedDict):
    included: Annotated[
        bool, "whether the uploads are in this backup; else all there is"
    ]


class OfUploads(_OfUploads, total=False):
    count: Annotated[int, "how many there are"]
    bytes: Annotated[int, "their size"]
    read: Annotated[int, "how many were read anew"]
    added: Annotated[int, "the size of contents that no backup had"]
    missing: Annotated[int, "named by the database, not on the disk"]
    refused: Annotated[int, "on the disk, and not taken"]
    folders: Annotated[int, "folders that are left out"]
    behind: Annotated[int, "the files in these"]
    linked: Annotated[int, "uploads that are links, and left out"]
    left_out: Annotated[list[str], "why, for some of the folders"]
    examples: Annotated[list[str], "some missing and refused ones"]
    not_included: Annotated[list[str], "file storages on no local disk"]


class Tokens(TypedDict):
    api_tokens: Annotated[str, "a fingerprint of the secret that API tokens depend on"]


class Manifest(TypedDict):
    """Of a backup; it never changes. JSON with sorted keys, in UTF-8."""

    format: Annotated[int, "the version of this format"]
    id: Annotated[str, "the id of the backup, which is its directory's name"]
    site: Annotated[OfSite, "whose backup it is"]
    versions: Annotated[
        dict[str, object], "of CKAN and this extension; the names of the plugins"
    ]
    created: Annotated[str, "when it was begun, in UTC"]
    seconds: Annotated[float, "how long it took"]
    skew_seconds: Annotated[float, "between the moments of the two databases"]
    note: Annotated[str, "the note of who took it"]
    reason: Annotated[str, "`manual`, `before restore`, …"]
    databases: Annotated[dict[str, OfDatabase], "by part: `database`, `datastore`"]
    files: Annotated[OfUploads, "the uploads"]
    contents: Annotated[dict[str, Content], "the other files here, by name"]
    secrets: Annotated[Tokens, "what a restore elsewhere has to know"]
    hmac: Annotated[str, "the signature over all else, with the site's secret"]


class Verified(TypedDict):
    time: Annotated[str, "when it was read last"]
    problems: Annotated[list[str], "what was found"]


class Proof(TypedDict):
    time: Annotated[str, "when it was made"]
    seconds: Annotated[float, "how long it took"]
    problems: Annotated[list[str], "what was found; none, and it is proven"]
    told: Annotated[list[str], "what was told of the copy"]
    tables: Annotated[int, "the tables of the copy"]
    rows: Annotated[int, "their rows, as many as in the manifest"]
    migrated: Annotated[list[str], "the migrations that were run on the copy"]
    read: Annotated[dict[str, int], "the records that were read, by kind"]
    uploads: Annotated[dict[str, int] | None, "the uploads that the database names"]


class _State(TypedDict):
    id: Annotated[str, "the id of the backup"]
    hmac: Annotated[str, "the signature over all else"]


class State(_State, total=False):
    """What is learned of a backup later, in `state/<id>.json`."""

    verified: Annotated[Verified, "the last reading"]
    proved: Annotated[Proof, "the last proof"]
    keep: Annotated[bool, "whether it is held"]


class _Upload(TypedDict):
    path: Annotated[str, "its path; the bytes of the name as on the disk"]


class Upload(_Upload, total=False):
    """A line of `files.jsonl.zst`: all up to `sha256`, else why there is none."""

    size: Annotated[int, "its size in bytes"]
    mtime: Annotated[float, "when it was changed, seconds since 1970"]
    ctime_ns: Annotated[int, "when its inode was changed, nanoseconds"]
    inode: Annotated[int, "the number of its inode"]
    sha256: Annotated[str, "its checksum, which is its name in `objects`"]
    missing: Annotated[bool, "the database names it, the disk has it not"]
    refused: Annotated[str, "why it was not taken"]


class Record(TypedDict):
    """A line of `records.jsonl.zst`; `null` is what a record does not have."""

    kind: Annotated[
        str, "`dataset`, `organization`, `group`, `user`, `resource`, `table`"
    ]
    id: Annotated[str, "its id"]
    name: Annotated[str | None, "its name"]
    title: Annotated[str | None, "its title"]
    state: Annotated[str | None, "`active`, `draft` or `deleted`"]
    owner: Annotated[
        str | None, "the organization of a dataset, the dataset of a resource"
    ]
    modified: Annotated[str | None, "when it was changed last, in UTC"]
    hash: Annotated[str | None, "what tells a change where there is no such time"]
