"""What is in the databases of every portal of the tests."""

from __future__ import annotations

DATASETS = 40
DATASTORE_TABLES = 3
UPLOADS = 5

#: a table that takes a minute to load into a copy, and no time elsewhere
SLOW_IN_COPIES = """
CREATE FUNCTION slow_in_copies() RETURNS bool LANGUAGE sql AS $$
  SELECT CASE WHEN current_database() LIKE 'dbm%' THEN pg_sleep(60) IS NOT NULL
  ELSE true END $$;
CREATE TABLE slow (a int CHECK (slow_in_copies())); INSERT INTO slow VALUES (1);
"""

ROWS = f"""
INSERT INTO "user" (id, name, fullname, email, created, state, sysadmin)
  SELECT 'user-' || i, 'user-' || i, 'Us\u00e9r ' || i, 'u' || i || '@example.com', now(),
         'active', i = 1 FROM generate_series(1, 5) i;
INSERT INTO "group" (id, name, title, state, type, approval_status, is_organization, created)
  VALUES ('org-1', 'org-1', 'An organization', 'active', 'organization', 'approved', true, now()),
         ('group-1', 'group-1', 'A group', 'active', 'group', 'approved', false, now());
INSERT INTO package (id, name, title, notes, state, type, owner_org, private,
                     metadata_created, metadata_modified, creator_user_id)
  SELECT 'id-' || i, 'dataset-' || i, E'Dataset \\t\u6771\u4eac ' || i, E'a\\nb\\\\.', 'active', 'dataset',
         'org-1', i % 10 = 0, now(), now() - i * interval '1 hour', 'user-1'
  FROM generate_series(1, {DATASETS}) i;
INSERT INTO resource (id, package_id, url, format, state, name, description, position,
                      created, metadata_modified, extras)
  SELECT 'r-' || i, 'id-' || i, 'https://example.com/' || i, 'CSV', 'active', 'File', '', 0,
         now(), now(), '{{}}' FROM generate_series(1, {DATASETS}) i;
INSERT INTO resource (id, package_id, url, url_type, format, state, name, description, position,
                      created, metadata_modified, extras)
  SELECT 'upload-' || i, 'id-' || i, 'table.csv', 'upload', 'CSV', 'active', 'Upload', '', 1,
         now(), now(), '{{}}' FROM generate_series(1, {UPLOADS}) i;
UPDATE "group" SET image_url = 'logo 東.png' WHERE id = 'org-1';
INSERT INTO tag (id, name) VALUES ('tag-1', 'air quality');
INSERT INTO package_tag (id, package_id, tag_id, state)
  SELECT 'pt-' || i, 'id-' || i, 'tag-1', 'active' FROM generate_series(1, {DATASETS}) i;
INSERT INTO member (id, group_id, table_id, state, table_name, capacity)
  SELECT 'm-' || i, 'org-1', 'id-' || i, 'active', 'package', 'organization'
  FROM generate_series(1, {DATASETS}) i;
"""
