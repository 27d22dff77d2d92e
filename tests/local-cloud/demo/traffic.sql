-- What customers do all the while: new orders, changed ones, deleted invoices, and pgbench's transfers.
\set customer random(1, 1000 * :scale)
\set account random(1, 100000 * :accounts)
\set delta random(-5000, 5000)
begin;
insert into shop.orders (customer_id, placed_at, lines, total)
  values (:customer, timestamptz '2026-06-01' + random() * interval '100 days', '[]', abs(:delta));
update shop.customer set credit = coalesce(credit, 0) + :delta where customer_id = :customer;
update pgbench_accounts set abalance = abalance + :delta where aid = :account;
insert into pgbench_history (tid, bid, aid, delta, mtime) values (1, 1, :account, :delta, now());
delete from shop.invoice where invoice_number = 1000 + :customer;
insert into shop.invoice (customer_id, issued, amount) values (:customer, current_date, 1.5);
end;
