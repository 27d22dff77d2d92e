//! Everything that a database does to itself while it is backed up, at once, until told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rds_local::postgres::{Running, SUPERUSER};
use tokio_postgres::{Client, Config, NoTls};

/// What it works on.
pub const SCHEMA: &str = "
    CREATE TABLE orders (id bigserial PRIMARY KEY, customer int NOT NULL, total numeric, note text, at timestamptz DEFAULT now());
    CREATE INDEX orders_customer ON orders (customer);
    CREATE TABLE items (order_id bigint, line int, product text, tags text[], data jsonb, PRIMARY KEY (order_id, line));
    CREATE TABLE calm (id int PRIMARY KEY, payload text);
    CREATE TABLE keyless (a int, b text);
    CREATE TABLE rewritten (id int PRIMARY KEY, payload text);
    CREATE TABLE changing (id int PRIMARY KEY, payload text);
    CREATE TABLE scratch (id int, payload text);
    CREATE UNLOGGED TABLE cache (id int, payload text);
    CREATE TABLE parts (id int, region int, payload text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
    CREATE TABLE parts_2 PARTITION OF parts FOR VALUES IN (2);
    INSERT INTO orders (customer, total, note) SELECT g % 500, g * 1.01, repeat('n', g % 60) FROM generate_series(1, 12000) g;
    INSERT INTO items SELECT g, 1, 'p' || g, ARRAY['a', NULL, g::text], jsonb_build_object('n', g) FROM generate_series(1, 8000) g;
    INSERT INTO calm SELECT g, md5(g::text) FROM generate_series(1, 9000) g;
    INSERT INTO keyless SELECT g % 100, md5(g::text) FROM generate_series(1, 5000) g;
    INSERT INTO rewritten SELECT g, md5(g::text) FROM generate_series(1, 6000) g;
    INSERT INTO changing SELECT g, md5(g::text) FROM generate_series(1, 3000) g;
    INSERT INTO cache SELECT g, 'c' FROM generate_series(1, 100) g;
    INSERT INTO parts SELECT g, 1 + g % 2, md5(g::text) FROM generate_series(1, 4000) g;
    CREATE MATERIALIZED VIEW totals AS SELECT customer, count(*) FROM orders GROUP BY customer;
    ANALYZE;
";

/// The threads at work. Dropping it stops them.
pub struct Workload {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// Statements that were carried out, by kind.
    pub counts: Arc<Counts>,
}

/// How much was done: a workload that does nothing proves nothing.
#[derive(Debug, Default)]
pub struct Counts {
    pub writes: AtomicU64,
    pub aborts: AtomicU64,
    pub long: AtomicU64,
    pub prepared: AtomicU64,
    pub ddl: AtomicU64,
    pub vacuum: AtomicU64,
}

impl Workload {
    /// Starts it against the database `shop`.
    pub fn start(server: &Running, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let counts = Arc::new(Counts::default());
        let mut threads = Vec::new();
        let mut spawn = |index: u64, act: fn(&mut Actor)| {
            let mut config = Config::new();
            config.host_path(server.socket_dir()).port(server.port()).user(SUPERUSER).dbname("shop");
            let (stop, counts) = (Arc::clone(&stop), Arc::clone(&counts));
            threads.push(std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let (client, connection) = runtime.block_on(config.connect(NoTls)).unwrap();
                runtime.spawn(async move {
                    let _ = connection.await;
                });
                let state = (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(index * 7919);
                let mut actor = Actor { runtime, client, stop, counts, state, round: 0, index };
                actor.run("SET lock_timeout = '300ms'; SET statement_timeout = '20s'");
                while !actor.stopped() {
                    actor.round += 1;
                    act(&mut actor);
                }
            }));
        };
        spawn(1, Actor::write);
        spawn(2, Actor::write);
        spawn(3, Actor::long);
        spawn(4, Actor::long);
        spawn(5, Actor::prepare);
        spawn(6, Actor::ddl);
        spawn(7, Actor::vacuum);
        Self { stop, threads, counts }
    }

    /// Stops it and waits for the end of its sessions.
    pub fn stop(mut self) {
        self.halt();
    }

    fn halt(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let result = thread.join();
            assert!(result.is_ok() || std::thread::panicking(), "a session of the workload panicked");
        }
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.halt();
    }
}

struct Actor {
    runtime: tokio::runtime::Runtime,
    client: Client,
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    state: u64,
    round: u64,
    index: u64,
}

impl Actor {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Runs statements; locks that are not given in time are part of life.
    fn run(&mut self, sql: &str) -> bool {
        self.runtime.block_on(self.client.simple_query(sql)).is_ok()
    }

    fn pick(&mut self, below: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % below
    }

    /// Goes on for a while, unless it is over. Work between two statements of a transaction, not waiting for one.
    fn linger(&mut self, milliseconds: u64) {
        let until = std::time::Instant::now() + Duration::from_millis(milliseconds);
        while std::time::Instant::now() < until && !self.stopped() {
            self.run("SELECT pg_sleep(0.02)");
        }
    }

    fn change(&mut self) -> String {
        let (id, other) = (self.pick(14_000), self.pick(9_000));
        match self.pick(8) {
            0 | 1 => {
                format!("INSERT INTO orders (customer, total, note) VALUES ({}, 9.5, 'new {id}')", id % 500)
            }
            2 => format!("UPDATE orders SET total = total + 1 WHERE id BETWEEN {id} AND {}", id + 3),
            3 => format!("DELETE FROM orders WHERE id = {id}"),
            4 => format!("UPDATE items SET data = data || '{{\"x\": {id}}}' WHERE order_id = {other}"),
            5 => format!("DELETE FROM keyless WHERE a = {} AND b < '1'", other % 100),
            6 => {
                format!("UPDATE parts SET region = 3 - region, payload = 'm{id}' WHERE id = {}", other % 4000)
            }
            _ => format!(
                "INSERT INTO items VALUES ({other}, {}, 'q', NULL, '{{}}') ON CONFLICT (order_id, line) \
                 DO UPDATE SET product = 'q{id}'",
                1 + id % 2
            ),
        }
    }

    fn write(&mut self) {
        let (one, two, three) = (self.change(), self.change(), self.change());
        let end = if self.pick(4) == 0 { "ROLLBACK" } else { "COMMIT" };
        let done = self
            .run(&format!("BEGIN; {one}; SAVEPOINT s; {two}; ROLLBACK TO s; SAVEPOINT t; {three}; {end}"));
        if !done {
            self.run("ROLLBACK");
        }
        let counter = if end == "COMMIT" { &self.counts.writes } else { &self.counts.aborts };
        counter.fetch_add(u64::from(done), Ordering::Relaxed);
        // Busy, and not so busy that nothing else gets a processor.
        self.run("SELECT pg_sleep(0.015)");
    }

    /// Transactions that are open at a frame or at a snapshot, with rows of subtransactions.
    fn long(&mut self) {
        let (one, two, three) = (self.change(), self.change(), self.change());
        let mut good = self.run("BEGIN") && self.run(&one);
        self.linger(150);
        good = good && self.run("SAVEPOINT a") && self.run(&two);
        self.linger(400);
        good = good && self.run("SAVEPOINT b") && self.run(&three) && self.run("RELEASE b");
        let time = 100 + self.pick(900);
        self.linger(time);
        good = good && self.run(if self.round.is_multiple_of(3) { "ROLLBACK" } else { "COMMIT" });
        if !good {
            self.run("ROLLBACK");
        }
        self.counts.long.fetch_add(u64::from(good), Ordering::Relaxed);
    }

    fn prepare(&mut self) {
        let (one, two) = (self.change(), self.change());
        let name = format!("p{}_{}", self.index, self.round);
        if !self.run(&format!("BEGIN; {one}; SAVEPOINT s; {two}; PREPARE TRANSACTION '{name}'")) {
            self.run("ROLLBACK");
            return;
        }
        let time = 50 + self.pick(400);
        self.linger(time);
        let end = if self.round.is_multiple_of(4) { "ROLLBACK" } else { "COMMIT" };
        assert!(self.run(&format!("{end} PREPARED '{name}'")), "a prepared transaction must end");
        self.counts.prepared.fetch_add(1, Ordering::Relaxed);
    }

    fn ddl(&mut self) {
        let round = self.round;
        // Names come and go, so that the database does not grow with the time that the test takes.
        let (name, other) = (round % 6, (round + 3) % 6);
        let sql = match self.pick(11) {
            0 => format!("ALTER TABLE changing ADD COLUMN IF NOT EXISTS c{name} int DEFAULT {round}"),
            1 => format!("ALTER TABLE changing DROP COLUMN IF EXISTS c{other}"),
            2 => format!("CREATE TABLE IF NOT EXISTS made_{name} AS SELECT g FROM generate_series(1, 300) g"),
            3 => format!("DROP TABLE IF EXISTS made_{other}"),
            4 => format!("CREATE INDEX IF NOT EXISTS changing_{name} ON changing (payload, id)"),
            5 => format!("DROP INDEX IF EXISTS changing_{other}"),
            6 => "TRUNCATE scratch".to_owned(),
            7 => format!("INSERT INTO scratch SELECT g, 's{round}' FROM generate_series(1, 400) g"),
            8 => format!("CREATE TABLE brief (n int); INSERT INTO brief VALUES ({round}); DROP TABLE brief"),
            9 => "REFRESH MATERIALIZED VIEW totals".to_owned(),
            _ => format!("CREATE OR REPLACE VIEW newest AS SELECT {round} AS n, id FROM orders"),
        };
        let done = self.run(&sql);
        self.counts.ddl.fetch_add(u64::from(done), Ordering::Relaxed);
        self.linger(60);
    }

    fn vacuum(&mut self) {
        let sql = match self.pick(7) {
            0 => "VACUUM orders",
            1 => "VACUUM (FREEZE) items",
            2 => "VACUUM (FULL) rewritten",
            3 => "VACUUM (FREEZE) calm",
            4 => "UPDATE rewritten SET payload = payload || 'x' WHERE id % 500 = 7",
            5 => "CLUSTER changing USING changing_pkey",
            _ => "VACUUM (FREEZE, ANALYZE)",
        };
        let done = self.run(sql);
        self.counts.vacuum.fetch_add(u64::from(done), Ordering::Relaxed);
        self.linger(80);
    }
}
