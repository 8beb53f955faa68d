"""Who may call the actions: sysadmins, and nobody else.

CKAN lets sysadmins pass before it asks here.
"""

from typing import Any


def sysadmins_only(context: Any, data_dict: Any) -> dict[str, Any]:
    return {"success": False, "msg": "Only sysadmins may manage backups"}
