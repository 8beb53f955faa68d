"""Datasets, organizations, groups and users: what these kinds are in CKAN's tables."""

from __future__ import annotations

from ..engine.restore.preview import Kind

#: for the preview of a restore; `is_organization` is a boolean here, its text there
KINDS = (
    Kind("datasets", "package", "state = 'active'", changed="metadata_modified"),
    Kind("resources", "resource", "state = 'active'", changed="metadata_modified"),
    Kind(
        "organizations",
        "group",
        "state = 'active' AND left(is_organization::text, 1) = 't'",
    ),
    Kind(
        "groups", "group", "state = 'active' AND left(is_organization::text, 1) = 'f'"
    ),
    Kind("users", "user", "state = 'active'"),
)
