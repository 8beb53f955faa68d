"""Names on the disk: the parts of a backup and the files of a repository."""

import re

PARTS = ("database", "datastore", "files")
#: the lists of a database's segments by part; nothing a manifest says becomes a path
SEGMENTS = {"database": "database.list", "datastore": "datastore.list"}
OBJECTS = "objects"
LIST = "files.jsonl.zst"
#: the index of what the databases of a backup hold
RECORDS = "records.jsonl.zst"
FORMAT = 2
MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
#: the directory of the exports that the sysadmin page asked for
EXPORTS = "exports"
#: the directory of what goes along with a backup to another place, while it does
ALONG = "site"
#: all names of a preview, in there
PREVIEW = re.compile(r"preview(-\d{8}T\d{6}Z)?\.jsonl", re.ASCII)
#: how the problem of a backup that is not this site's own begins
UNSIGNED = "is not signed"
#: how the only problem of a backup that this user may not read begins
DENIED = "cannot be read by"
ID = re.compile(r"\d{8}T\d{6}Z", re.ASCII)  # no digits of other scripts
#: another cluster's database as a file, as long as it is loaded
LENT = "load"
PARTIAL = re.compile(r"\.[0-9A-Za-z]+\.partial")
PARTIAL_EXPORT = re.compile(r"\..+\.partial")
PARTIAL_STATE = re.compile(r"\.\d{8}T\d{6}Z\.(json|html)\.[0-9a-f]+\.partial", re.ASCII)
