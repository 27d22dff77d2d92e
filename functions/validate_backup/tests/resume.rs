//! Trouble on the way: killed, out of time, cut off, refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::workload::SCHEMA;
use common::{BACKUP, Memory, Proof, UNIT_BYTES};
use dr_core::ErrorName;
use dr_core::proof::judgement::{Level, Verdict};
use dr_postgres::{ConnectionSettings, Limits, Password, Security, Source};
use rds_local::postgres::{ClusterOptions, MasterUser, Running, StartOptions, TcpOptions};
use validate_backup::frame;
use validate_backup::request::Stage;
use validate_backup::store::Records;

fn world(major: u32) -> (tempfile::TempDir, Running) {
    let dir = common::directory();
    let server = common::source(dir.path(), major, &ClusterOptions::default());
    server.sql("shop", SCHEMA).unwrap();
    (dir, server)
}

/// Lets the work run until storing hangs, then drops it, as Lambda does with a function that is killed.
async fn killed_after<F: Future>(store: &Memory, writes: usize, work: F) {
    store.hang_after.store(writes, Ordering::SeqCst);
    let begun = Instant::now();
    let reached = async {
        while store.writes.lock().unwrap().values().sum::<usize>() < writes {
            assert!(begun.elapsed() < Duration::from_mins(1), "{writes} writes are not reached");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // The workers now finish what they are at, and hang in storing it.
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    tokio::select! {
        _ = work => panic!("it was done before {writes} writes"),
        () = reached => {}
    }
    store.hang_after.store(0, Ordering::SeqCst);
}

fn each_written_once(store: &Memory, folder: &str) -> usize {
    let writes = store.writes.lock().unwrap();
    let units: Vec<_> = writes.iter().filter(|(key, _)| key.contains(folder)).collect();
    assert!(units.iter().all(|(_, times)| **times == 1), "{units:?}");
    units.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_stored_before_a_kill_is_never_done_again() {
    let (dir, server) = world(15);
    let store = Memory::default();
    let settings = common::settings(&server);
    let source = Source { reader: &settings, writer: None, instance: "orders" };
    let records = Records::of(&store, BACKUP);
    let options = common::options();
    for writes in [4, 9] {
        let work = frame::advance(&records, &source, &options, UNIT_BYTES, common::limits());
        killed_after(&store, writes, work).await;
        // Rows change between the invocations, which have different horizons.
        server.sql("shop", &format!("UPDATE orders SET note = 'k' WHERE id % 50 = {writes}")).unwrap();
    }
    common::frame(&store, BACKUP, &server).await;
    assert!(each_written_once(&store, "frame/units/") > 9);
    let copy = server.freeze_and_copy(&common::at(&dir, "copy")).unwrap();
    common::observe_quiet(&store, BACKUP, &server).await;
    let restore = common::start(&copy);
    let proof = Proof {
        store: &store,
        operation: "proof-1",
        frame: Some(BACKUP),
        earlier: None,
        restore: &restore,
        source: Some(&server),
        validation: common::options(),
    };
    let before = store.writes.lock().unwrap().values().sum::<usize>();
    killed_after(&store, before + 6, proof.step(common::limits())).await;
    let report = proof.conclude().await;
    each_written_once(&store, "examination/");
    assert_eq!(report.judgement.verdict, Verdict::Proven, "{:#?}", report.findings);
    // Judged once: the second answer is the first.
    assert_eq!(proof.conclude().await, report);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_out_of_time_is_an_answer_with_progress() {
    let (_dir, server) = world(16);
    let store = Memory::default();
    let settings = common::settings(&server);
    let source = Source { reader: &settings, writer: None, instance: "orders" };
    let records = Records::of(&store, BACKUP);
    let step = async |milliseconds| {
        let limits = Limits::lasting(1, Duration::from_millis(milliseconds), Duration::from_secs(5));
        frame::advance(&records, &source, &common::options(), UNIT_BYTES, limits).await.unwrap()
    };
    let Stage::Pending { check_again_in_seconds, progress } = step(0).await else {
        panic!("no time, yet done")
    };
    assert_eq!(check_again_in_seconds, 1);
    assert_eq!((progress.units_done, progress.percent), (0, 0));
    assert!(progress.units_total > 10 && progress.bytes_total > 1_000_000, "{progress:?}");
    let mut done = 0;
    for call in 1..200u64 {
        match step(20 * call).await {
            Stage::Pending { progress, .. } => {
                assert!(progress.units_done >= done, "{progress:?}");
                assert!(progress.percent < 100, "{progress:?}");
                done = progress.units_done;
            }
            Stage::Done { frame, progress } => {
                assert_eq!(progress.percent, 100);
                let frame = frame.unwrap();
                assert_eq!(frame.units, progress.units_total);
                assert!(frame.rows > 40_000, "{frame:?}");
                each_written_once(&store, "frame/units/");
                return;
            }
        }
    }
    panic!("the frame does not end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_connections_cost_time_and_nothing_else() {
    let (dir, server) = world(16);
    let store = Memory::default();
    let cut = |server: &Running| -> usize {
        let sql =
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lifeboat'";
        server.sql("shop", sql).unwrap().len()
    };
    let mut cuts = 0;
    for (operation, milliseconds) in [(BACKUP, 30), ("backup-0000000000000002", 80)] {
        let records = Records::of(&store, operation);
        let settings = common::settings(&server);
        let source = Source { reader: &settings, writer: None, instance: "orders" };
        let options = common::options();
        let mut work =
            std::pin::pin!(frame::advance(&records, &source, &options, UNIT_BYTES, common::limits()));
        // The plan is one long look, which is simply asked for again; the units are what is kept up.
        let planned = async {
            while store.writes.lock().unwrap().keys().filter(|key| key.contains(operation)).count() < 2 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        };
        tokio::select! {
            _ = &mut work => continue,
            () = planned => {}
        }
        cuts += cut(&server);
        assert!(matches!(work.await.unwrap(), Stage::Done { .. }));
    }
    assert!(cuts > 0, "no connection was cut");
    let copy = server.freeze_and_copy(&common::at(&dir, "copy")).unwrap();
    common::frame(&store, BACKUP, &server).await;
    common::observe_quiet(&store, BACKUP, &server).await;
    let restore = common::start(&copy);
    let proof = Proof {
        store: &store,
        operation: "proof-1",
        frame: Some(BACKUP),
        earlier: None,
        restore: &restore,
        source: Some(&server),
        validation: common::options(),
    };
    let report = proof.conclude().await;
    assert_eq!(report.judgement.verdict, Verdict::Proven, "{:#?}", report.findings);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_without_a_frame_is_proven_in_structure_only() {
    let (dir, server) = world(16);
    let copy = server.freeze_and_copy(&common::at(&dir, "copy")).unwrap();
    let restore = common::start(&copy);
    let store = Memory::default();
    let mut proof = Proof {
        store: &store,
        operation: "proof-1",
        frame: None,
        earlier: None,
        restore: &restore,
        source: None,
        validation: common::options(),
    };
    let report = proof.conclude().await;
    assert_eq!(report.judgement.level, Level::Structure);
    assert_eq!(report.judgement.verdict, Verdict::Proven, "{:#?}", report.findings);
    assert!(report.judgement.row_count > 40_000);
    assert_eq!(report.judgement.coverage.proven_rows, 0);
    // An RPO that is asked for has to be shown.
    proof.operation = "proof-2";
    proof.validation.max_rpo_seconds = Some(60);
    assert_eq!(proof.conclude().await.judgement.verdict, Verdict::Unproven);
    // A frame that is named has to be there.
    proof.operation = "proof-3";
    proof.frame = Some("backup-ffffffffffffffff");
    let error = proof.step(common::limits()).await.unwrap_err();
    assert_eq!(error.name(), ErrorName::FrameMissing);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_named_and_leave_nothing() {
    let (dir, server) = world(16);
    let master = MasterUser { name: "app".to_owned(), password: "right".to_owned(), database: None };
    server.set_up_roles(&master).unwrap();
    let cluster = server.stop(rds_local::postgres::StopMode::Fast).unwrap();
    let authority = Authority::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let tcp = TcpOptions { port, certificate: authority.certificate.clone(), key: authority.key.clone() };
    let server = cluster.start(&StartOptions { tcp: Some(tcp), ..StartOptions::default() }).unwrap();
    let other = Authority::new();
    let reach = |password: &str, port, authority: &Authority| {
        let security = Security::verified(authority.certificate.as_bytes()).unwrap();
        ConnectionSettings::new("127.0.0.1", port, "app", Some(Password::new(password)), "shop", security)
    };
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (what, settings, expected) in [
        ("a wrong password", reach("wrong", port, &authority), ErrorName::CredentialsRejected),
        ("a strange certificate", reach("right", port, &other), ErrorName::CertificateRejected),
        ("nobody there", reach("right", free, &authority), ErrorName::ConnectionFailed),
        ("tables that may not be read", reach("right", port, &authority), ErrorName::PermissionMissing),
    ] {
        let store = Memory::default();
        let source = Source { reader: &settings, writer: None, instance: "orders" };
        let records = Records::of(&store, BACKUP);
        let result =
            frame::advance(&records, &source, &common::options(), UNIT_BYTES, common::limits()).await;
        let error = result.unwrap_err();
        assert_eq!(error.name(), expected, "{what}: {error}");
        assert!(!error.to_string().contains("wrong"), "{what}: {error}");
        assert!(store.objects.lock().unwrap().is_empty(), "{what}");
    }
    drop(server);
    drop(dir);
}

/// A certificate of our own for 127.0.0.1.
struct Authority {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        Self { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }
}
