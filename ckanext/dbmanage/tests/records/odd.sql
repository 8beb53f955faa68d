-- Rows that break naive exporters, on top of bench/portal.sql
\set ON_ERROR_STOP 1
begin;
-- vocabulary tags
insert into vocabulary(id,name) values ('voc-1','genre'),('voc-2','region');
insert into tag(id,name,vocabulary_id) select 'vt'||i,'genre-'||i,'voc-1' from generate_series(1,10) i;
insert into tag(id,name,vocabulary_id) select 'vr'||i,'tag-'||i,'voc-2' from generate_series(1,5) i;  -- same names as free tags
insert into package_tag(id,state,package_id,tag_id) select md5('vpt'||i)::uuid::text,'active',md5('p'||i)::uuid::text,'vt'||(1+i%10) from generate_series(1,50) i;
insert into package_tag(id,state,package_id,tag_id) select md5('vpr'||i)::uuid::text,'active',md5('p'||i)::uuid::text,'vr'||(1+i%5) from generate_series(1,50,3) i;
insert into package_tag(id,state,package_id,tag_id) select md5('vpd'||i)::uuid::text,'deleted',md5('p'||i)::uuid::text,md5('t'||(1+(i*7+9*31)%500))::uuid::text from generate_series(1,50,4) i;
-- relationships
insert into package_relationship(id,subject_package_id,object_package_id,type,comment,state) select 'rel'||i,md5('p'||i)::uuid::text,md5('p'||(i+1))::uuid::text,case when i%2=0 then 'depends_on' else 'child_of' end,'c',case when i%5=0 then 'deleted' else 'active' end from generate_series(1,25) i;
-- uploads, scheme-less URLs, url '', deleted resource, resource extras null, nested extras
update resource set url_type='upload', url='My File (1).CSV' where package_id in (select md5('p'||i)::uuid::text from generate_series(1,100,2) i) and position=0;
update resource set url='www.example.com/x' where package_id in (select md5('p'||i)::uuid::text from generate_series(1,100,3) i) and position=1;
update resource set url='' where package_id in (select md5('p'||i)::uuid::text from generate_series(1,100,7) i) and position=2;
update resource set state='deleted' where package_id in (select md5('p'||i)::uuid::text from generate_series(1,100,11) i) and position=1;
update resource set extras=null, mimetype=null, size=null, format='geojson', last_modified='2020-02-03 04:05:06' where package_id in (select md5('p'||i)::uuid::text from generate_series(1,100,5) i) and position=2;
update resource set extras='{"nested": {"a": [1, 2.5, null]}, "list": [1,2], "n": 1.10, "name": "shadow", "big": 36893488147419103233, "deep": -36893488147419103233, "long": 12345678901234567890, "least": -9223372036854775809, "u": "\u00e9"}' where package_id in (select md5('p'||i)::uuid::text from generate_series(1,100,13) i) and position=0;
update resource set extras='' where false;
-- packages
update package set extras=null where id in (select md5('p'||i)::uuid::text from generate_series(101,150,3) i);
update package set extras='{}' where id in (select md5('p'||i)::uuid::text from generate_series(102,150,3) i);
update package set extras='{"zz":"","a":"x","title":"shadow","license_title":"sh","some_date":"2020-01-02","bad_date":"nope","Ünï key":"v","tags":"t"}' where id in (select md5('p'||i)::uuid::text from generate_series(103,150,5) i);
update package set owner_org=null where id in (select md5('p'||i)::uuid::text from generate_series(150,175,3) i) ;
update package set license_id=null where id in (select md5('p'||i)::uuid::text from generate_series(150,200,3) i);
update package set license_id='nonsense' where id in (select md5('p'||i)::uuid::text from generate_series(151,200,3) i);
update package set license_id='notspecified' where id in (select md5('p'||i)::uuid::text from generate_series(152,200,6) i);
update package set title='  spaced  title ', version=null, url=null, notes=null, author=null where id in (select md5('p'||i)::uuid::text from generate_series(200,225,3) i);
update package set title='' where id in (select md5('p'||i)::uuid::text from generate_series(201,225,3) i);
update package set title=null, maintainer='m' where id in (select md5('p'||i)::uuid::text from generate_series(202,225,3) i);
update package set state='deleted' where id in (select md5('p'||i)::uuid::text from generate_series(226,238) i);
update package set state='draft' where id in (select md5('p'||i)::uuid::text from generate_series(239,245) i);
update package set type=null where id in (select md5('p'||i)::uuid::text from generate_series(246,250) i);
update package set type='custom' where id in (select md5('p'||i)::uuid::text from generate_series(251,270) i);
update package set metadata_modified=date_trunc('second',metadata_modified) where id in (select md5('p'||i)::uuid::text from generate_series(271,278) i);
update package set metadata_modified=date_trunc('second',metadata_modified)+interval '0.9 second' where id in (select md5('p'||i)::uuid::text from generate_series(279,286) i);
update package set metadata_modified=date_trunc('second',metadata_modified)+interval '123 microsecond' where id in (select md5('p'||i)::uuid::text from generate_series(287,289) i);
update package set notes=E'ctrl \x07 \u2028 line "quote" \\ <b> 😀 \uFFFF end', plugin_data='{"x":{"y":1}}' where id in (select md5('p'||i)::uuid::text from generate_series(290,298) i);
-- groups with odd states/images, org deleted
update "group" set state='deleted' where name in ('group-3','org-7');
update "group" set image_url='2020-01-01-img.png' where name in ('group-4','org-8');
update "group" set image_url='http://e.com/i.png', title='' where name in ('group-5','org-9');
insert into member(id,group_id,table_id,state,table_name,capacity) select md5('mu'||g||'-'||u)::uuid::text,md5('g'||g)::uuid::text,'u'||md5('u'||u),case when u%7=0 then 'deleted' else 'active' end,'user','member' from generate_series(1,20) g, generate_series(1,30) u where u<=g;
insert into member(id,group_id,table_id,state,table_name,capacity) select md5('mgx-'||i)::uuid::text,md5('g'||(1+(i+5)%20))::uuid::text,md5('p'||i)::uuid::text,case when i%3=0 then 'deleted' else 'active' end,'package','public' from generate_series(1,100) i;
insert into package(id,name,title,state,type,private,metadata_created,metadata_modified,creator_user_id) values ('bare-1','bare-1','Bare','active','dataset',false,now(),now(),null),('bare-2','bare-2',null,'active',null,false,now(),now(),null);
insert into resource(id,url,position,state,package_id) values ('bare-r1','',0,'active','bare-1');
commit; 
