//! The ledger on real servers: it tells every loss, for good, and never one that is none.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod common;

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::Memory;
use dr_aws::Invocation;
use dr_aws::testing::{Resource, World};
use dr_core::ids::DatabaseId;
use dr_core::{EngineFamily, ErrorName, Result};
use dr_database::{ConnectionSettings, Security};
use jiff::Timestamp;
use rds_local::{mariadb, postgres};
use serde_json::{Value, json};
use validate_backup::request::Ledger;
use validate_backup::store::Records;
use validate_backup::{Handler, Reach, Request, ledger};

const OPERATION: &str = "chaos-0123456789abcdef";

/// A server of either family.
enum Server {
    Postgres(postgres::Running),
    MariaDb(mariadb::Running),
}

impl Server {
    fn postgres(dir: &Path) -> Self {
        Self::Postgres(common::source(dir, 17, &postgres::ClusterOptions::default()))
    }

    fn mariadb(dir: &Path) -> Self {
        let installation = mariadb::Installation::find().unwrap();
        let files =
            mariadb::Files::create(&installation, &dir.join("source"), &mariadb::FilesOptions::default());
        Self::MariaDb(files.unwrap().start(&mariadb::StartOptions::default()).unwrap())
    }

    fn settings(&self) -> ConnectionSettings {
        match self {
            Self::Postgres(server) => common::settings(server),
            Self::MariaDb(server) => {
                let security = Security::LocalSocket(server.socket().to_owned());
                ConnectionSettings::new("local", server.port(), mariadb::SUPERUSER, None, "", security)
                    .speaking(EngineFamily::MySql)
            }
        }
    }

    fn sql(&self, statement: &str) {
        match self {
            Self::Postgres(server) => drop(server.sql("shop", statement).unwrap()),
            Self::MariaDb(server) => drop(server.sql("mysql", statement).unwrap()),
        }
    }

    fn pid(&self) -> i32 {
        match self {
            Self::Postgres(server) => server.pid(),
            Self::MariaDb(server) => server.pid(),
        }
    }

    /// Ends without a checkpoint, and starts again.
    async fn crash(self, meanwhile: impl AsyncFnOnce()) -> Self {
        match self {
            Self::Postgres(server) => {
                let cluster = server.stop(postgres::StopMode::Immediate).unwrap();
                meanwhile().await;
                Self::Postgres(common::start(&cluster))
            }
            Self::MariaDb(server) => {
                let files = server.stop(mariadb::StopMode::Immediate).unwrap();
                meanwhile().await;
                Self::MariaDb(files.start(&mariadb::StartOptions::default()).unwrap())
            }
        }
    }
}

async fn turn(store: &Memory, writer: &ConnectionSettings) -> Result<Ledger> {
    let database = DatabaseId::parse("orders").unwrap();
    ledger::turn(&Records::of(store, OPERATION), &database, writer, false).await
}

/// Asks, and answers `(intact, acknowledged, found, beat)`.
async fn told(store: &Memory, server: &Server) -> (bool, i64, Option<i64>, i64) {
    let ledger = turn(store, &server.settings()).await.unwrap();
    assert_eq!(ledger.database.as_str(), "orders");
    (ledger.intact, ledger.acknowledged, ledger.found, ledger.beat)
}

fn written(store: &Memory) -> usize {
    store.writes.lock().unwrap().values().sum()
}

/// An asking that is killed after its beat, before that is written down.
async fn killed_before_the_record(store: &Memory, server: &Server) {
    store.hang_after.store(written(store), Ordering::SeqCst);
    let asked = tokio::time::timeout(Duration::from_secs(5), turn(store, &server.settings())).await;
    assert!(asked.is_err(), "it was not killed: {asked:?}");
    store.hang_after.store(0, Ordering::SeqCst);
}

/// An asking of a database that is out, and what it is named.
async fn outage(store: &Memory, writer: &ConnectionSettings) -> ErrorName {
    let (before, begun) = (written(store), Instant::now());
    let error = turn(store, writer).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_mins(1), "told after {:?}: {error}", begun.elapsed());
    assert_eq!(written(store), before, "an outage is no loss: {error}");
    error.name()
}

async fn follow(server: Server) -> (Memory, Server) {
    let store = Memory::default();
    assert_eq!(told(&store, &server).await, (true, 0, None, 1));
    assert_eq!(told(&store, &server).await, (true, 1, Some(1), 2));
    // A look writes nothing.
    let (before, database) = (written(&store), DatabaseId::parse("orders").unwrap());
    let look =
        ledger::turn(&Records::of(&store, OPERATION), &database, &server.settings(), true).await.unwrap();
    assert_eq!((look.intact, look.acknowledged, look.found, look.beat), (true, 2, Some(2), 2));
    assert_eq!(written(&store), before);
    // An acknowledgement that was lost is no loss of data.
    killed_before_the_record(&store, &server).await;
    assert_eq!(told(&store, &server).await, (true, 2, Some(3), 4));
    // Another operation has a ledger of its own.
    let other = Records::of(&store, "chaos-fedcba9876543210");
    let database = DatabaseId::parse("orders").unwrap();
    let beat = ledger::turn(&other, &database, &server.settings(), false).await.unwrap().beat;
    assert_eq!(beat, 1);
    // Down, and up again after a crash.
    let settings = server.settings();
    let server =
        server.crash(async || assert_eq!(outage(&store, &settings).await, ErrorName::ConnectionFailed)).await;
    assert_eq!(told(&store, &server).await, (true, 4, Some(4), 5));
    (store, server)
}

/// A lost tail is told, and stays told although later beats hide it.
async fn lose(store: Memory, server: Server) {
    let rows_were = store.objects.lock().unwrap().clone();
    server.sql("UPDATE lifeboat.heartbeat SET beat = beat - 1 WHERE operation_id = 'chaos-0123456789abcdef'");
    assert_eq!(told(&store, &server).await, (false, 5, Some(4), 5));
    for beat in 6..9 {
        assert_eq!(told(&store, &server).await, (false, 5, Some(4), beat));
    }
    // The same database with the records that it had: a row that is gone, and a table that is.
    for loss in ["DELETE FROM lifeboat.heartbeat", "DROP TABLE lifeboat.heartbeat"] {
        server.sql(loss);
        let store = Memory::default();
        *store.objects.lock().unwrap() = rows_were.clone();
        // Killed before it could say so: it is told all the same.
        store.hang_after.store(1, Ordering::SeqCst);
        let asked = tokio::time::timeout(Duration::from_secs(5), turn(&store, &server.settings())).await;
        assert!(asked.is_err(), "{asked:?}");
        store.hang_after.store(0, Ordering::SeqCst);
        assert_eq!(told(&store, &server).await, (false, 5, None, 2), "{loss}");
    }
}

/// A server that takes connections and answers nothing is told as quickly as one that is not there.
async fn hang(store: &Memory, server: &Server) {
    let signal = |name: &str| {
        assert!(Command::new("kill").args([name, &server.pid().to_string()]).status().unwrap().success());
    };
    signal("-STOP");
    let named = outage(store, &server.settings()).await;
    signal("-CONT");
    assert_eq!(named, ErrorName::ConnectionFailed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_is_intact_through_kills_and_crashes_and_a_lost_tail_is_told_for_good() {
    let dir = common::directory();
    let (store, server) = follow(Server::postgres(dir.path())).await;
    lose(store, server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_is_intact_through_kills_and_crashes_and_a_lost_tail_is_told_for_good() {
    let dir = common::directory();
    let (store, server) = follow(Server::mariadb(dir.path())).await;
    lose(store, server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgresql_that_hangs_is_locked_or_only_stands_by_is_an_outage_and_no_loss() {
    let dir = common::directory();
    let server = Server::postgres(dir.path());
    let store = Memory::default();
    assert_eq!(told(&store, &server).await, (true, 0, None, 1));
    let Server::Postgres(running) = &server else { panic!("it is PostgreSQL") };
    let copy = running.freeze_and_copy(&common::at(&dir, "standby")).unwrap();
    assert_eq!(told(&store, &server).await, (true, 1, Some(1), 2));
    hang(&store, &server).await;
    // Somebody holds the row: the beat cannot be written.
    let url = running.url("shop");
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    let driver = tokio::spawn(connection);
    client.batch_execute("BEGIN; SELECT * FROM lifeboat.heartbeat FOR UPDATE").await.unwrap();
    assert_eq!(outage(&store, &server.settings()).await, ErrorName::ConnectionLost);
    client.batch_execute("ROLLBACK").await.unwrap();
    drop(client);
    driver.await.unwrap().unwrap();
    // The beat that nobody waited for may have come all the same.
    let (intact, acknowledged, found, beat) = told(&store, &server).await;
    assert!(intact && acknowledged == 2 && matches!(found, Some(2 | 3)), "{acknowledged} {found:?}");
    // A standby that has replayed less than was acknowledged: the name does not lead to the new writer yet.
    copy.write_file("standby.signal", b"").unwrap();
    let standby = Server::Postgres(common::start(&copy));
    assert_eq!(outage(&store, &standby.settings()).await, ErrorName::DatabaseUnavailable);
    assert_eq!(told(&store, &server).await, (true, beat, Some(beat), beat + 1));
    // Promoted, it is the writer, and what it has not is lost.
    standby.sql("SELECT pg_promote()");
    assert_eq!(told(&store, &standby).await, (false, beat + 1, Some(1), 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_lost_between_the_look_and_the_beat_is_told_for_good() {
    let dir = common::directory();
    let server = Server::postgres(dir.path());
    let store = Memory::default();
    assert_eq!(told(&store, &server).await, (true, 0, None, 1));
    assert_eq!(told(&store, &server).await, (true, 1, Some(1), 2));
    let Server::Postgres(running) = &server else { panic!("it is PostgreSQL") };
    let (client, connection) =
        tokio_postgres::connect(&running.url("shop"), tokio_postgres::NoTls).await.unwrap();
    let driver = tokio::spawn(connection);
    client.batch_execute("BEGIN; DELETE FROM lifeboat.heartbeat").await.unwrap();
    // Until it commits, the row is seen, and cannot be written.
    let goes = async {
        let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        while client.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        client.batch_execute("COMMIT").await.unwrap();
    };
    let (first, ()) = tokio::join!(told(&store, &server), goes);
    assert_eq!(first, (false, 2, None, 1));
    assert_eq!(told(&store, &server).await, (false, 2, None, 2));
    drop(client);
    driver.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mariadb_that_hangs_or_is_read_only_is_an_outage_and_no_loss() {
    let dir = common::directory();
    let server = Server::mariadb(dir.path());
    let store = Memory::default();
    assert_eq!(told(&store, &server).await, (true, 0, None, 1));
    hang(&store, &server).await;
    server.sql("SET GLOBAL read_only = 1");
    assert_eq!(outage(&store, &server.settings()).await, ErrorName::DatabaseUnavailable);
    server.sql("SET GLOBAL read_only = 0");
    assert_eq!(told(&store, &server).await, (true, 1, Some(1), 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_itself_is_asked_whatever_rds_says_of_it() {
    let dir = common::directory();
    let server = common::source(dir.path(), 17, &postgres::ClusterOptions::default());
    let world = World::default();
    let mut orders = Resource::new(&[
        ("DBInstanceIdentifier", "orders"),
        ("DBInstanceArn", "arn:aws:rds:us-east-1:000000000000:db:orders"),
        ("DBInstanceStatus", "rebooting"),
        ("DBInstanceClass", "db.m7g.large"),
        ("Engine", "postgres"),
        ("EngineVersion", "17.5"),
        ("DBName", "shop"),
    ]);
    orders.raw = format!("<Endpoint><Address>local</Address><Port>{}</Port></Endpoint>", server.port());
    world.state().databases.insert(("us-east-1".to_owned(), "orders".to_owned()), orders);
    let secret = json!({"username": postgres::SUPERUSER, "password": "unused"}).to_string();
    world.state().secrets.insert("orders-user".to_owned(), secret);
    let handler = Handler {
        store: Memory::default(),
        home: None,
        reach: Reach {
            clients: world.wire().clients().unwrap(),
            security: OnceLock::from(Security::LocalSocket(server.socket_dir().to_owned())),
        },
    };
    let invocation = Invocation {
        request_id: "r".to_owned(),
        received_at: Timestamp::now(),
        deadline: Timestamp::now() + Duration::from_mins(1),
        function_arn: String::new(),
    };
    let ask = async |payload: Value| {
        let request: Request = serde_json::from_value(payload).unwrap();
        handler.handle(request, &invocation).await.map(|answer| serde_json::to_value(answer).unwrap())
    };
    let asking = json!({"ledger": {"operationId": OPERATION, "database": "orders",
        "credentials": {"secretId": "orders-user"}}});
    for (acknowledged, found) in [(0, Value::Null), (1, json!(1))] {
        let beat = acknowledged + 1;
        let expected = json!({"intact": true, "acknowledged": acknowledged, "found": found, "beat": beat,
            "database": "orders"});
        assert_eq!(ask(asking.clone()).await.unwrap(), expected);
    }
    let keys: Vec<String> = handler.store.objects.lock().unwrap().keys().cloned().collect();
    assert_eq!(keys, [format!("operations/{OPERATION}/ledger/orders.json")]);
    // A frame waits for the status; a database that is not there, and one without credentials, have their names.
    let missing = json!({"ledger": {"operationId": OPERATION, "database": "stores"}});
    let nameless = json!({"ledger": {"operationId": OPERATION, "database": "orders"}});
    let frame = json!({"frame": {"operationId": OPERATION, "database": "orders"}});
    for (payload, name) in [
        (missing, ErrorName::DatabaseMissing),
        (nameless, ErrorName::CredentialsMissing),
        (frame, ErrorName::DatabaseUnavailable),
    ] {
        assert_eq!(ask(payload).await.unwrap_err().name(), name);
    }
}
