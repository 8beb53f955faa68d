"""Who may call the actions: sysadmins, and nobody else.

CKAN lets sysadmins pass before it asks here.
"""

from __future__ import annotations

from typing import Any

_NAMES = (
    "status backup_create backup_list backup_show backup_verify backup_keep "
    "backup_delete backup_download restore undo export publish job_show job_list "
    "job_cancel maintenance_show maintenance_update"
)


def _sysadmins_only(context: Any, data_dict: Any) -> dict[str, Any]:
    return {"success": False, "msg": "Only sysadmins may manage backups"}


def functions() -> dict[str, Any]:
    """The auth functions by name."""
    return {f"dbmanage_{name}": _sysadmins_only for name in _NAMES.split()}
