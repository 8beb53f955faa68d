-- One night of the main database: 1 % of the datasets are changed, :v is the night
\set ON_ERROR_STOP 1
begin;
create temp table touched as select id, row_number() over () n from package
  where abs(hashtext(id || :'v')) % 100 = 0 order by hashtext(id || :'v');
update package p set metadata_modified = now(), title = title || ' (rev ' || :'v' || ')',
  notes = 'Updated. ' || notes from touched t where t.id = p.id;
update resource r set metadata_modified = now(), size = size + 1 from touched t
  where r.package_id = t.id and r.position = 0;
insert into activity (id, timestamp, user_id, object_id, activity_type, data)
  select md5('night' || :'v' || t.id)::uuid::text, now(), 'u' || md5('u' || (1 + n % 1000)), t.id,
    'changed package', json_build_object('package', (select to_json(p) from package p where p.id = t.id),
    'resources', (select json_agg(r) from resource r where r.package_id = t.id), 'actor', 'user')::text
  from touched t where n <= 200;
update "user" set last_active = now() where abs(hashtext(id || :'v')) % 20 = 0;
commit;
vacuum analyze;
