"""How many datasets changed, quickly or not at all."""

from __future__ import annotations

from datetime import timedelta

from ckanext.dbmanage.engine.clock import now
from ckanext.dbmanage.portal.changed import datasets

from ..support.portal import DATASETS, Portal


def test_datasets_that_were_changed_made_or_deleted(portal: Portal) -> None:
    site, since = portal.site(), now()
    assert datasets(site) == DATASETS
    # the template's are of a moment ago at most
    assert datasets(site, since + timedelta(minutes=1)) == 0
    later = "timezone('UTC', now()) + interval '5 minutes'"
    portal.sql(
        f"UPDATE package SET metadata_modified = {later} WHERE id IN ('id-1', 'id-2');"
        "INSERT INTO activity (id, timestamp, user_id, object_id, activity_type, data)"
        f" SELECT id, {later}, 'user-1', id, 'deleted package', '{{}}' FROM package"
        " WHERE id IN ('id-2', 'id-3')"
    )
    assert datasets(site, since + timedelta(minutes=1)) == 3
    portal.sql("DROP TABLE activity CASCADE")
    assert datasets(site, since + timedelta(minutes=1)) == 2
    portal.sql("ALTER TABLE package DROP COLUMN metadata_created CASCADE")
    assert datasets(site, since) is None
