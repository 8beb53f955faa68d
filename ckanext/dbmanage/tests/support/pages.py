"""The sysadmin page as a browser without a script sees it."""

from __future__ import annotations

import html
import re
import secrets

BACKUPS = "/ckan-admin/backups/"
#: the actions that change nothing
READING = {
    "dbmanage_status", "dbmanage_backup_list", "dbmanage_backup_show",
    "dbmanage_job_show", "dbmanage_job_list", "dbmanage_maintenance_show",
    "dbmanage_journal", "dbmanage_history", "dbmanage_retention_show",
}  # fmt: skip
#: what `ckanext.dbmanage.admin_url` of the shared site connects as, so that it may lose
#: a right
ROLE = f"forms_{secrets.token_hex(3)}"


def text(page: str) -> str:
    """What a person reads of a page."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def boxes(page: str) -> dict[str, bool]:
    """The boxes for parts, and whether they are ticked."""
    found = re.findall(r'name="parts" value="(\w+)"( checked)?', page)
    return {part: bool(ticked) for part, ticked in found}
