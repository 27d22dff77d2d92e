//! Connections that must not be made, and work that is cut short.

use std::sync::Mutex;
use std::time::Duration;

use dr_core::{EngineFamily, ErrorName};
use dr_database::{Access, ConnectionSettings, Limits, Pace, Password, Security};
use dr_mysql::{Session, read_units};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rds_local::mariadb::{Files, FilesOptions, Installation, MasterUser, Running, StartOptions, TcpOptions};

use super::lab::*;

const SECRET: &str = "s3cret-canary";

struct Authority {
    ca: String,
    certificate: String,
    key: String,
}

fn authority() -> Authority {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::<String>::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = server.signed_by(&key, &issuer).unwrap().pem();
    Authority { ca: pem, certificate, key: key.serialize_pem() }
}

fn endpoint(dir: &std::path::Path, authority: &Authority) -> Running {
    let master = MasterUser { name: "boss".into(), password: SECRET.into(), database: Some("app".into()) };
    let options = FilesOptions { master: Some(master) };
    let files = Files::create(&Installation::find().unwrap(), &dir.join("source"), &options).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let tcp = TcpOptions { port, certificate: authority.certificate.clone(), key: authority.key.clone() };
    files.start(&StartOptions { tcp: Some(tcp), ..StartOptions::default() }).unwrap()
}

fn to(server: &Running, host: &str, password: &str, ca: &str) -> ConnectionSettings {
    let security = Security::verified(ca.as_bytes()).unwrap();
    ConnectionSettings::new(host, server.port(), "boss", Some(Password::new(password)), "", security)
        .speaking(EngineFamily::MySql)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_verified_server_is_told_a_password_and_errors_do_not_tell_it() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, foreign) = (authority(), authority());
    let server = endpoint(dir.path(), &ours);
    let session = Session::open(&to(&server, "127.0.0.1", SECRET, &ours.ca), Access::ReadOnly).await.unwrap();
    assert!(session.version() >= 100_600);
    let cases = [
        (
            "another password",
            to(&server, "127.0.0.1", "wrong-canary", &ours.ca),
            ErrorName::CredentialsRejected,
        ),
        (
            "a foreign authority",
            to(&server, "127.0.0.1", SECRET, &foreign.ca),
            ErrorName::CertificateRejected,
        ),
        ("another name", to(&server, "localhost", SECRET, &ours.ca), ErrorName::CertificateRejected),
        (
            "nobody there",
            {
                let mut nowhere = to(&server, "127.0.0.1", SECRET, &ours.ca);
                nowhere.port = 1;
                nowhere
            },
            ErrorName::ConnectionFailed,
        ),
    ];
    for (what, settings, expected) in cases {
        let error = Session::open(&settings, Access::ReadOnly).await.map(drop).unwrap_err();
        assert_eq!(error.name(), expected, "{what}: {error:?}");
        let text = format!("{error} {error:?} {settings:?}");
        assert!(!text.contains("canary"), "{what}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_not_read_everything_is_told_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let ours = authority();
    let server = endpoint(dir.path(), &ours);
    server.sql("mysql", "REVOKE SELECT ON *.* FROM boss@'%'; GRANT SELECT ON app.* TO boss@'%'").unwrap();
    let settings = to(&server, "127.0.0.1", SECRET, &ours.ca);
    let error =
        dr_mysql::frame::plan(&settings, "db", "backup-1", UNIT_BYTES, None).await.map(drop).unwrap_err();
    assert_eq!(error.name(), ErrorName::PermissionMissing, "{error}");
    assert!(error.to_string().contains("Grant it SELECT"), "{error}");
}

const FILL: &str = "CREATE DATABASE shop; \
    CREATE TABLE shop.t (id INT PRIMARY KEY, v VARCHAR(200)); \
    INSERT INTO shop.t SELECT seq, REPEAT('x', 150) FROM mysql.seq_1_to_20000; ANALYZE TABLE shop.t";

#[tokio::test(flavor = "multi_thread")]
async fn work_that_is_cut_short_goes_on_where_it_was_and_comes_to_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let server = source(dir.path(), &[]);
    server.sql("mysql", FILL).unwrap();
    let plan = plan(&server).await;
    let whole = read(&server, &plan.tables, plan.units.clone()).await;
    assert!(plan.units.len() > 8, "{}", plan.units.len());
    let done = Mutex::new(Vec::new());
    let mut rounds = 0;
    loop {
        rounds += 1;
        let rest: Vec<_> = {
            let done = done.lock().unwrap();
            let is_done =
                |id| done.iter().any(|result: &dr_core::proof::frame::UnitResult| result.unit == id);
            plan.units.iter().filter(|unit| !is_done(unit.id)).cloned().collect()
        };
        if rest.is_empty() {
            break;
        }
        // A pace that leaves most of it for another time.
        let pace = Pace::mebibytes_per_second(1);
        let limits = Limits::lasting(1, Duration::from_millis(700), Duration::from_millis(100));
        read_units(&settings(&server), &plan.tables, rest, limits, Some(&pace), async |result| {
            done.lock().unwrap().push(result);
            Ok(())
        })
        .await
        .unwrap();
        assert!(rounds < 60);
    }
    assert!(rounds > 2, "{rounds}");
    let mut done = done.into_inner().unwrap();
    let digests = |results: &mut Vec<dr_core::proof::frame::UnitResult>| {
        results.sort_by_key(|result| result.unit);
        results.iter().flat_map(|unit| unit.slices.clone()).collect::<Vec<_>>()
    };
    assert_eq!(digests(&mut done), digests(&mut whole.clone()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_killed_in_the_middle_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let server = source(dir.path(), &[]);
    server.sql("mysql", FILL).unwrap();
    let plan = plan(&server).await;
    let killed = Mutex::new(0);
    let results = Mutex::new(0);
    read_units(&settings(&server), &plan.tables, plan.units.clone(), limits(), None, async |_| {
        *results.lock().unwrap() += 1;
        if *results.lock().unwrap() == 2 {
            let sql = "SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID() \
                       AND user = 'rdsadmin'";
            for id in server.sql("mysql", sql).unwrap().into_iter().flatten().flatten() {
                *killed.lock().unwrap() += usize::from(server.sql("mysql", &format!("KILL {id}")).is_ok());
            }
        }
        Ok(())
    })
    .await
    .unwrap();
    assert!(*killed.lock().unwrap() > 0);
    assert_eq!(*results.lock().unwrap(), plan.units.len());
}
