-- Several hundred megabytes, made by the server itself. `scale` is the number of customers in thousands.
\set ON_ERROR_STOP on
select setseed(0.42);

insert into shop.customer (email, name, joined, credit, preferences, labels, picture, notes)
select
  'customer' || n || '@example.com',
  'Customer ' || n,
  timestamptz '2020-01-01' + n * interval '7 minutes',
  case when n % 7 = 0 then null else (n % 100000)::numeric / 100 end,
  jsonb_build_object('newsletter', n % 2 = 0, 'language', (array['de', 'en', 'fr'])[1 + n % 3]),
  case when n % 5 = 0 then null else array['c' || n % 10, 'segment ' || n % 4] end,
  case when n % 50 = 0 then decode(repeat(md5(n::text), 40), 'hex') end,
  -- Every hundredth note is long and hard to compress, so that it is stored out of line (TOAST).
  case when n % 100 = 0
    then (select string_agg(md5(n::text || i), '') from generate_series(1, 200) i)
    else repeat('note ', n % 12)
  end
from generate_series(1, :scale * 1000) n;

insert into shop.orders (customer_id, placed_at, state, lines, total, delivery)
select
  1 + n % (:scale * 1000),
  timestamptz '2024-01-01' + (n::double precision / (:scale * 6000)) * interval '1050 days',
  (array['placed', 'paid', 'shipped', 'returned'])[1 + n % 4]::shop.order_state,
  jsonb_build_array(jsonb_build_object('article', n % 977, 'count', 1 + n % 5)),
  (n % 900000)::numeric / 37,
  case when n % 3 = 0 then daterange(date '2024-01-01' + n % 900, date '2024-01-08' + n % 900) end
from generate_series(1, :scale * 6000) n;

insert into shop.invoice (customer_id, issued, amount, paid)
select 1 + n % (:scale * 1000), date '2024-01-01' + n % 900, sqrt(n), case when n % 4 = 0 then null else n % 2 = 0 end
from generate_series(1, :scale * 2000) n;

refresh materialized view shop.turnover;
vacuum analyze;
