-- A DataStore of 300 tables as loaders of CSV leave them: 15 large, 85 middling, 200
-- small ones, together 1.6 GB of a plain dump when :scale is 1
\set ON_ERROR_STOP 1
set synchronous_commit = off;
create schema if not exists bench;
create table bench.phrase (i int primary key, text text, vector tsvector);
insert into bench.phrase select i, text, to_tsvector('simple', text) from (
  select i, string_agg(substr(translate(md5((i * 31 + k * k)::text), '0123456789', 'aeiounrstl'),
    1, 3 + (i + k * 7) % 8), ' ') as text
  from generate_series(0, 4095) i, generate_series(1, 6) k group by i) made;
analyze bench.phrase;
-- rows `first` to `last` of a file: row n of file t is always the same
create function bench.rows(t int, first int, last int)
  returns table (n int, reference text, title text, buyer text, amount numeric, day timestamp,
                 link text, vector tsvector)
  language sql as $$
  select n, 'R-' || abs(hashint8(n::bigint * 977 + t)), a.text || ' ' || b.text, c.text,
    round(abs(hashint8(n::bigint + t)::numeric) / 7919, 2), timestamp '2015-01-01' + (abs(hashint4(n + t)) % 4000) * interval '1 day',
    'https://data.example.org/' || substr(md5((n::bigint * 1000 + t)::text), 1, 16), a.vector || b.vector || c.vector
  from generate_series(first, last) n
  join bench.phrase a on a.i = abs(hashint8(n::bigint * 300 + t)) % 4096
  join bench.phrase b on b.i = abs(hashint8(n::bigint * 307 + t + 5)) % 4096
  join bench.phrase c on c.i = abs(hashint4(n * 11 + t)) % 200
  order by n $$;
create function bench.name(t int) returns text language sql immutable as
  $$ select md5('table' || t)::uuid::text $$;
create function bench.size(t int, scale numeric) returns int language sql immutable as
  $$ select greatest(20, (scale * case when t < 15 then 120000 when t < 100 then 17000 else 360 end
     * (0.6 + (t * 37 % 80) / 100.0))::int) $$;
-- `changes`: of so many rows one is of another file; `above`: new rows before the others
create function bench.load(t int, size int, changes int default 0, other int default 0, above int default 0)
  returns void language plpgsql as $$
  begin
    execute format('create table public.%I (_id serial primary key, _full_text tsvector,
      reference text, title text, buyer text, amount numeric, day timestamp, link text)', bench.name(t));
    if above > 0 then perform bench.append(t, 9000000, above); end if;
    execute format('insert into public.%I (_full_text, reference, title, buyer, amount, day, link)
      select vector, reference, title, case when %s > 0 and n %% greatest(%s, 1) = 0 then %L || buyer else buyer end,
        amount, day, link from bench.rows(%s, 1, %s)', bench.name(t), changes, changes, 'of ' || other || ' ', t, size);
  end $$;
create function bench.append(t int, start int, size int) returns void language plpgsql as $$
  begin
    execute format('insert into public.%I (_full_text, reference, title, buyer, amount, day, link)
      select vector, reference, title, buyer, amount, day, link from bench.rows(%s, %s, %s)',
      bench.name(t), t, start, start + size - 1);
  end $$;
-- one night: nine tables are appended to, loaded anew or updated, one comes, one goes
create function bench.night(v int, scale numeric) returns void language plpgsql as $$
  declare
    size int; t int;
  begin
    t := v; perform bench.append(t, 1000000 * v, (bench.size(t, scale) * 0.03)::int);
    foreach t in array array[20, 110] loop
      perform bench.append(t, 1000000 * v, (bench.size(t, scale) * 0.1)::int + 1);
    end loop;
    foreach t in array array[6, 121] loop
      execute format('drop table public.%I', bench.name(t));
      perform bench.load(t, bench.size(t, scale), 100, v);
    end loop;
    foreach t in array array[20 + v, 121 + v] loop
      execute format('drop table public.%I', bench.name(t));
      perform bench.load(t, bench.size(t, scale), 0, 0, 20);
    end loop;
    foreach t in array array[40 + v, 140] loop
      execute format('update public.%I set link = link || %L where _id %% 100 = %s',
        bench.name(t), '?' || v, v);
    end loop;
    execute format('drop table public.%I', bench.name(200 + v));
    perform bench.load(300 + v, bench.size(200 + v, scale));
  end $$;
select bench.load(t, bench.size(t, :scale)) from generate_series(0, 299) t \g /dev/null
