"""The engine: PostgreSQL databases and backups, and nothing of CKAN, Flask or click.

It is handed what it needs to know: the site as a `Site`, what CKAN has to do as a
callable, the names of settings and commands in `report.NAMES`. `tests/test_layers.py`
enforces the rule.
"""
