//! Connections that are refused, lie, break or lack rights.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dr_core::ErrorName;
use dr_core::proof::examination::CheckOutcome;
use dr_core::proof::frame::SliceOutcome;
use dr_postgres::examine::{self, Wishes};
use dr_postgres::{
    Access, ConnectionSettings, Limits, Pace, Password, Security, Session, Source, UnitWork, frame,
    heartbeat, read_units,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rds_local::postgres::{
    ClusterOptions, MasterUser, Running, StartOptions, StopMode, TcpOptions, Toolchain,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::lab::{
    Framed, Lab, UNIT_BYTES, check, collect, examine, faults, limits, plan_frame, settings, settings_as, sql,
};

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    fn pem(&self) -> String {
        self.issuer.pem()
    }

    fn server(&self, names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// A server as RDS runs it: TLS only, roles of RDS, master user `admin`.
fn rds(lab: &Lab, authority: &Authority, names: &[&str]) -> Running {
    let toolchain = Toolchain::find(lab.major).unwrap();
    let master =
        MasterUser { name: "admin".into(), password: "pass word".into(), database: Some("app".into()) };
    let options = ClusterOptions { master: Some(master), ..ClusterOptions::default() };
    let cluster =
        rds_local::postgres::Cluster::create(&toolchain, &lab.dir.path().join("rds"), &options).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (certificate, key) = authority.server(names);
    let tcp = Some(TcpOptions { port, certificate, key });
    cluster.start(&StartOptions { tcp, ..StartOptions::default() }).unwrap()
}

fn remote(port: u16, password: &str, bundle: &str) -> ConnectionSettings {
    let security = Security::verified(bundle.as_bytes()).unwrap();
    let mut settings =
        ConnectionSettings::new("127.0.0.1", port, "admin", Some(Password::new(password)), "app", security);
    settings.connect_timeout = Duration::from_secs(2);
    settings
}

async fn refusal(settings: &ConnectionSettings) -> ErrorName {
    Session::open(settings, Access::ReadOnly).await.unwrap_err().name()
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_verified_and_refusals_are_named() {
    let lab = Lab::new(17);
    let authority = Authority::new();
    let server = rds(&lab, &authority, &["127.0.0.1", "localhost"]);
    let good = remote(server.port(), "pass word", &authority.pem());
    let session = Session::open(&good, Access::ReadOnly).await.unwrap();
    assert_eq!(session.major(), 17);
    let printed = format!("{good:?} {session:?}");
    assert!(!printed.contains("pass word"), "{printed}");

    assert_eq!(
        refusal(&remote(server.port(), "wrong", &authority.pem())).await,
        ErrorName::CredentialsRejected
    );
    let stranger = Authority::new();
    assert_eq!(
        refusal(&remote(server.port(), "pass word", &stranger.pem())).await,
        ErrorName::CertificateRejected
    );
    let amazon = ConnectionSettings { security: Security::rds().unwrap(), ..good.clone() };
    assert_eq!(refusal(&amazon).await, ErrorName::CertificateRejected);
    assert_eq!(refusal(&good.for_database("absent")).await, ErrorName::QueryFailed);
    assert_eq!(refusal(&good.for_database("rdsadmin")).await, ErrorName::CredentialsRejected);

    let error =
        Session::open(&remote(server.port(), "wrong", &authority.pem()), Access::ReadOnly).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("wrong"), "the password is in {error:?}");

    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert_eq!(refusal(&remote(closed, "pass word", &authority.pem())).await, ErrorName::ConnectionFailed);
    // Accepts, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    assert_eq!(refusal(&remote(port, "pass word", &authority.pem())).await, ErrorName::ConnectionFailed);
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_another_host_is_refused() {
    let lab = Lab::new(14);
    let authority = Authority::new();
    let server = rds(&lab, &authority, &["db.example.com"]);
    let settings = remote(server.port(), "pass word", &authority.pem());
    assert_eq!(refusal(&settings).await, ErrorName::CertificateRejected);
}

#[test]
fn a_bundle_must_hold_certificates() {
    for bad in [&b""[..], b"hello", b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n"] {
        assert_eq!(Security::verified(bad).unwrap_err().name(), ErrorName::InvalidConfiguration);
    }
}

/// Forwards connections and counts them and their bytes of answers.
#[derive(Default)]
struct Forwarder {
    connections: AtomicUsize,
    answered: AtomicUsize,
}

/// Listens and forwards; `cut` says after how many bytes of answers a connection is cut, by its number.
async fn forward(
    to: u16,
    cut: impl Fn(usize) -> Option<usize> + Send + Sync + 'static,
) -> (u16, Arc<Forwarder>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let forwarder = Arc::new(Forwarder::default());
    let shared = forwarder.clone();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let limit = cut(shared.connections.fetch_add(1, Ordering::SeqCst));
            tokio::spawn(pass(near, to, limit, shared.clone()));
        }
    });
    (port, forwarder)
}

async fn pass(mut near: TcpStream, to: u16, limit: Option<usize>, count: Arc<Forwarder>) {
    let Ok(mut far) = TcpStream::connect(("127.0.0.1", to)).await else { return };
    let (mut asked, mut answered) = (vec![0; 8192], vec![0; 8192]);
    let mut passed = 0;
    loop {
        tokio::select! {
            read = near.read(&mut asked) => match read {
                Ok(bytes @ 1..) if far.write_all(&asked[..bytes]).await.is_ok() => {}
                _ => return,
            },
            read = far.read(&mut answered) => match read {
                Ok(bytes @ 1..) => {
                    passed += bytes;
                    count.answered.fetch_add(bytes, Ordering::SeqCst);
                    if limit.is_some_and(|limit| passed > limit) {
                        return;
                    }
                    if near.write_all(&answered[..bytes]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_is_opened_again_and_one_that_is_always_cut_is_given_up() {
    let lab = Lab::new(16);
    let authority = Authority::new();
    let server = rds(&lab, &authority, &["127.0.0.1"]);
    server
        .sql("app", "CREATE TABLE t AS SELECT k, repeat('x', 200) v FROM generate_series(1, 10000) k; GRANT SELECT ON t TO admin")
        .unwrap();
    let direct = remote(server.port(), "pass word", &authority.pem());
    let plan = plan_frame(&direct).await;
    let visibility = frame::horizon(&direct).await.unwrap();
    let work: Vec<UnitWork> = plan
        .units
        .iter()
        .map(|unit| UnitWork { unit: unit.clone(), visibility: Some(visibility.clone()) })
        .collect();
    let whole = collect(&direct, &plan.tables, work.clone()).await;
    let digests = |results: &[dr_core::proof::frame::UnitResult]| -> BTreeMap<u32, Vec<SliceOutcome>> {
        results
            .iter()
            .map(|unit| (unit.unit, unit.slices.iter().map(|slice| slice.outcome.clone()).collect()))
            .collect()
    };

    // What it takes to open a session, so that connections break after that.
    let (port, forwarder) = forward(server.port(), |_| None).await;
    drop(Session::open(&remote(port, "pass word", &authority.pem()), Access::ReadOnly).await.unwrap());
    let opening = forwarder.answered.load(Ordering::SeqCst);

    // The first six connections break, each a little later in the middle of a unit.
    let (port, forwarder) =
        forward(server.port(), move |number| (number < 6).then_some(opening + 200 + 400 * number)).await;
    let results = collect(&remote(port, "pass word", &authority.pem()), &plan.tables, work.clone()).await;
    assert_eq!(digests(&results), digests(&whole));
    let connections = forwarder.connections.load(Ordering::SeqCst);
    assert!(connections > 6, "{connections} connections, {opening} bytes to open one");

    let (port, forwarder) = forward(server.port(), move |_| Some(opening + 200)).await;
    let settings = remote(port, "pass word", &authority.pem());
    let error =
        read_units(&settings, &plan.tables, work, limits(), None, async |_| Ok(())).await.unwrap_err();
    assert!(matches!(error.name(), ErrorName::ConnectionLost | ErrorName::ConnectionFailed), "{error:?}");
    assert!(forwarder.connections.load(Ordering::SeqCst) < 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_crashes_is_waited_for_and_the_work_goes_on() {
    let lab = Lab::new(15);
    let source = lab.source();
    sql(&source, "CREATE TABLE t AS SELECT k, repeat('x', 200) v FROM generate_series(1, 20000) k");
    let reader = settings(&source, "postgres");
    let plan = plan_frame(&reader).await;
    let work: Vec<UnitWork> =
        plan.units.iter().map(|unit| UnitWork { unit: unit.clone(), visibility: None }).collect();
    let total = work.len();
    assert!(total > 10);
    let crashed = AtomicUsize::new(0);
    let stored = AtomicUsize::new(0);
    let pace = Pace::mebibytes_per_second(16);
    let progress = read_units(&reader, &plan.tables, work, limits(), Some(&pace), async |result| {
        assert!(
            result.slices.iter().all(|slice| matches!(slice.outcome, SliceOutcome::Digested(_))),
            "{result:?}"
        );
        if stored.fetch_add(1, Ordering::SeqCst) == 3 {
            // The server takes every other connection down with it.
            let pids = sql(&source, "SELECT pid FROM pg_stat_activity WHERE application_name = 'lifeboat'");
            let pid = pids[0][0].clone().unwrap();
            assert!(std::process::Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
            crashed.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!((progress.done, progress.left), (total, 0));
    assert_eq!((stored.load(Ordering::SeqCst), crashed.load(Ordering::SeqCst)), (total, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_is_an_error_and_so_is_a_store_that_fails() {
    let lab = Lab::new(18);
    let source = lab.source();
    sql(&source, "CREATE TABLE t AS SELECT k, repeat('x', 200) v FROM generate_series(1, 5000) k");
    let reader = settings(&source, "postgres");
    let plan = plan_frame(&reader).await;
    let work: Vec<UnitWork> =
        plan.units.iter().map(|unit| UnitWork { unit: unit.clone(), visibility: None }).collect();
    let error = read_units(&reader, &plan.tables, work.clone(), limits(), None, async |_| {
        Err(dr_core::DrError::new(ErrorName::MetadataBucketMissing, "storing"))
    })
    .await
    .unwrap_err();
    assert_eq!(error.name(), ErrorName::MetadataBucketMissing);
    source.stop(StopMode::Immediate).unwrap();
    let limits = Limits::lasting(2, Duration::from_secs(3), Duration::from_secs(1));
    let error = read_units(&reader, &plan.tables, work, limits, None, async |_| Ok(())).await.unwrap_err();
    assert_eq!(error.name(), ErrorName::ConnectionFailed);
}

async fn plan_error(settings: &ConnectionSettings) -> dr_core::DrError {
    let source = Source { reader: settings, writer: None, instance: "db" };
    frame::plan(&source, "backup-1", UNIT_BYTES).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_cannot_be_read_or_are_hidden_are_named_before_anything_is_read() {
    let lab = Lab::new(17);
    let source = lab.source();
    sql(
        &source,
        "CREATE ROLE reader LOGIN; CREATE TABLE secret (id int); CREATE TABLE policed (id int); \
         INSERT INTO policed VALUES (1), (2); GRANT SELECT ON policed TO reader; CREATE SEQUENCE s",
    );
    let reader = settings_as(&source, "reader", "postgres");
    let error = plan_error(&reader).await;
    assert_eq!(error.name(), ErrorName::PermissionMissing);
    assert!(error.what().contains("public.secret") && error.what().contains("public.s`"), "{error}");
    assert!(error.remedy().contains("pg_read_all_data"), "{error}");

    sql(
        &source,
        "GRANT pg_read_all_data TO reader; ALTER TABLE policed ENABLE ROW LEVEL SECURITY; \
         CREATE POLICY p ON policed USING (id = 1)",
    );
    let error = plan_error(&reader).await;
    assert_eq!(error.name(), ErrorName::PermissionMissing);
    assert!(error.what().contains("policed") && !error.what().contains("secret"), "{error}");
    assert!(error.remedy().contains("BYPASSRLS"), "{error}");

    // One that comes into force later is an error of the read, not a gap.
    sql(&source, "ALTER ROLE reader BYPASSRLS");
    let plan = plan_frame(&reader).await;
    sql(&source, "ALTER ROLE reader NOBYPASSRLS");
    let work: Vec<UnitWork> =
        plan.units.iter().map(|unit| UnitWork { unit: unit.clone(), visibility: None }).collect();
    let error = read_units(&reader, &plan.tables, work, limits(), None, async |_| Ok(())).await.unwrap_err();
    assert_eq!(error.name(), ErrorName::PermissionMissing);

    let error = heartbeat::beat(&reader, "backup-1").await.unwrap_err();
    assert_eq!(error.name(), ErrorName::PermissionMissing);

    sql(&source, "CREATE DATABASE closed");
    sql(&source, "REVOKE CONNECT ON DATABASE closed FROM PUBLIC");
    sql(&source, "ALTER ROLE reader BYPASSRLS");
    let error = plan_error(&reader).await;
    assert_eq!(error.name(), ErrorName::PermissionMissing);
    assert!(error.what().contains("`closed`"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_master_user_of_a_restore_gives_itself_what_it_needs() {
    for major in [14, 17] {
        let lab = Lab::new(major);
        let authority = Authority::new();
        let server = rds(&lab, &authority, &["127.0.0.1"]);
        server
            .sql(
                "app",
                "CREATE TABLE owned_by_somebody_else AS SELECT generate_series(1, 100) id; \
            CREATE UNIQUE INDEX ON owned_by_somebody_else (id)",
            )
            .unwrap();
        let master = remote(server.port(), "pass word", &authority.pem());
        assert_eq!(plan_error(&master).await.name(), ErrorName::PermissionMissing, "never on a source");
        let wishes = Wishes { foreign_keys: false, unique_constraints: true, unit_bytes: UNIT_BYTES };
        let plan = examine::plan(&master, "proof-1", None, wishes).await.unwrap();
        assert_eq!(plan.tables.len(), 1);
        assert!(plan.frame_units.iter().all(Option::is_none) && !plan.units.is_empty());
        let results = std::sync::Mutex::new(Vec::new());
        dr_postgres::checks::run_checks(&master, plan.checks.clone(), limits(), async |result| {
            results.lock().unwrap().push(result);
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(faults(&results.into_inner().unwrap()), []);
    }
}

/// As the README sets a source up: a role of Lifeboat's own writes the heartbeat, and the master owns everything else.
#[tokio::test(flavor = "multi_thread")]
async fn the_master_user_of_a_restore_finds_a_heartbeat_that_is_not_its_own() {
    for major in [14, 17] {
        let lab = Lab::new(major);
        let authority = Authority::new();
        let server = rds(&lab, &authority, &["127.0.0.1"]);
        let master = remote(server.port(), "pass word", &authority.pem());
        server
            .sql(
                "app",
                "CREATE ROLE lifeboat LOGIN; GRANT pg_read_all_data TO lifeboat; \
                 CREATE TABLE owned_by_the_master AS SELECT generate_series(1, 100) id; \
                 ALTER TABLE owned_by_the_master OWNER TO admin; CREATE SCHEMA lifeboat AUTHORIZATION lifeboat",
            )
            .unwrap();
        let beat = heartbeat::beat(&settings_as(&server, "lifeboat", "app"), "backup-1").await.unwrap();

        let wishes = Wishes { foreign_keys: false, unique_constraints: false, unit_bytes: UNIT_BYTES };
        examine::plan(&master, "proof-1", None, wishes).await.unwrap();
        let findings = dr_postgres::catalogue::findings::catalogue(&master, Some(&beat)).await.unwrap();
        assert_eq!(findings.heartbeat, Some(beat), "PostgreSQL {major}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_amcheck_the_checks_are_not_possible_and_say_so() {
    let lab = Lab::new(17);
    let source = lab.source();
    sql(
        &source,
        "CREATE ROLE plain LOGIN; GRANT pg_read_all_data TO plain; CREATE TABLE t (id int PRIMARY KEY)",
    );
    let reader = settings_as(&source, "plain", "postgres");
    let wishes = Wishes { foreign_keys: false, unique_constraints: false, unit_bytes: UNIT_BYTES };
    let plan = examine::plan(&reader, "proof-1", None, wishes).await.unwrap();
    let results = std::sync::Mutex::new(Vec::new());
    dr_postgres::checks::run_checks(&reader, plan.checks, limits(), async |result| {
        results.lock().unwrap().push(result);
        Ok(())
    })
    .await
    .unwrap();
    let results = results.into_inner().unwrap();
    let outcomes: Vec<&CheckOutcome> =
        results.iter().flat_map(|result| &result.outcomes).map(|(_, outcome)| outcome).collect();
    assert!(!outcomes.is_empty());
    assert!(
        outcomes.iter().all(
            |outcome| matches!(outcome, CheckOutcome::NotPossible { reason } if reason.contains("42501"))
        ),
        "{:?}",
        outcomes[0]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_table_is_waited_for_and_a_dropped_one_is_gone() {
    let lab = Lab::new(17);
    let source = lab.source();
    sql(
        &source,
        "CREATE TABLE stays AS SELECT 1 id; CREATE TABLE goes AS SELECT 1 id; CREATE TABLE renamed AS SELECT 1 id",
    );
    let reader = settings(&source, "postgres");
    let plan = plan_frame(&reader).await;
    sql(
        &source,
        "DROP TABLE goes; ALTER TABLE renamed RENAME TO \"new name\"; ALTER TABLE \"new name\" ADD COLUMN x int",
    );
    let (locker, connection) =
        tokio_postgres::connect(&source.url("postgres"), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    locker.batch_execute("BEGIN; LOCK TABLE stays").await.unwrap();
    let reading = async {
        let work = plan.units.iter().map(|unit| UnitWork { unit: unit.clone(), visibility: None }).collect();
        collect(&reader, &plan.tables, work).await
    };
    let unlocking = async {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'lifeboat'";
        while sql(&source, waiting)[0][0].as_deref() == Some("0") {
            tokio::task::yield_now().await;
        }
        locker.batch_execute("COMMIT").await.unwrap();
    };
    let (results, ()) = tokio::join!(reading, unlocking);
    let outcome = |name: &str| {
        let slice = results
            .iter()
            .flat_map(|unit| &unit.slices)
            .find(|result| plan.tables[result.slice.table].name.table == name);
        slice.unwrap().outcome.clone()
    };
    assert!(matches!(outcome("stays"), SliceOutcome::Digested(digest) if digest.rows == 1));
    assert!(matches!(outcome("renamed"), SliceOutcome::Digested(digest) if digest.rows == 1));
    assert_eq!(outcome("goes"), SliceOutcome::Gone);
    // And an examination without a frame of what is there now has nothing to complain about.
    let framed = Framed {
        plan: dr_core::proof::frame::FramePlan { tables: vec![], units: vec![], ..plan.clone() },
        units: BTreeMap::new(),
        beat: heartbeat::beat(&reader, "b").await.unwrap(),
    };
    let examined = examine(&source, &framed).await;
    assert_eq!(faults(&check(&source, &examined).await), []);
}
