"""The engine: PostgreSQL databases and backups, and nothing of CKAN, Flask or click.

What it needs to know of the site it is handed as a `Site`; what has to be done with
CKAN's help it is handed as a callable. `tests/test_layers.py` enforces the rule.
"""
