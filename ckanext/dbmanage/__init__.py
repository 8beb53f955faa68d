"""Backup, verification, restore and upgrade of a CKAN site's data."""
