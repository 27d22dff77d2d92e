-- The demo's database: what a small company keeps, with the types that break naive comparisons.
\set ON_ERROR_STOP on
create schema shop;

create type shop.order_state as enum ('placed', 'paid', 'shipped', 'returned');
create domain shop.email as text check (value like '%@%');

create table shop.customer (
  customer_id bigint generated always as identity primary key,
  email shop.email not null unique,
  name text not null,
  joined timestamptz not null default now(),
  credit numeric(12, 2),
  preferences jsonb not null default '{}',
  labels text[],
  picture bytea,
  notes text
);

create table shop.orders (
  order_id bigint generated always as identity,
  customer_id bigint not null references shop.customer,
  placed_at timestamptz not null,
  state shop.order_state not null default 'placed',
  lines jsonb not null,
  total numeric(14, 4) not null,
  delivery daterange,
  primary key (order_id, placed_at)
) partition by range (placed_at);
create table shop.orders_2024 partition of shop.orders for values from ('2024-01-01') to ('2025-01-01');
create table shop.orders_2025 partition of shop.orders for values from ('2025-01-01') to ('2026-01-01');
create table shop.orders_2026 partition of shop.orders for values from ('2026-01-01') to ('2027-01-01');

create sequence shop.invoice_number start 1000;
create table shop.invoice (
  invoice_number bigint primary key default nextval('shop.invoice_number'),
  customer_id bigint not null references shop.customer,
  issued date not null,
  amount double precision not null,
  paid boolean
);

create view shop.open_invoices as select * from shop.invoice where paid is not true;
create materialized view shop.turnover as
  select date_trunc('month', placed_at) as month, sum(total) as total from shop.orders group by 1;

create function shop.touch_notes() returns trigger language plpgsql as $$
begin
  if new.notes is null then
    new.notes := 'none';
  end if;
  return new;
end $$;
create trigger touch_notes before insert on shop.customer for each row execute function shop.touch_notes();
