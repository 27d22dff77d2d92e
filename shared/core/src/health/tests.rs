#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
use super::*;
use crate::control::{Breaker, BreakerStatus, EmergencyStop, Lock};
use crate::error::ErrorName;
use crate::fixtures::{at, key, operation, region};
use crate::ids::ExecutionArn;
use crate::labels::{self, Proof, Role};
use crate::observed::{KeyFacts, Observed, Tags};
use crate::operation;
use crate::proof::judgement::Level;

const GIB: f64 = 1_073_741_824.0;

pub(super) fn now() -> Timestamp {
    at("2026-01-10T12:00:00Z")
}

fn ago(duration: SignedDuration) -> Timestamp {
    now() - duration
}

fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

const SECOND: SignedDuration = SignedDuration::from_secs(1);

pub(super) fn blind() -> DrError {
    DrError::new(ErrorName::AwsUnreachable, "listing: no connection")
}

pub(super) fn home() -> Region {
    region("us-east-1")
}

pub(super) fn west() -> Region {
    region("us-west-2")
}

fn instance(id: &str) -> InstanceSeen {
    InstanceSeen {
        id: id.into(),
        arn: format!("arn:aws:rds:us-east-1:000000000000:db:{id}"),
        status: "available".into(),
        engine: "postgres".into(),
        allocated_storage_gb: 100,
        max_allocated_storage_gb: None,
        encrypted: true,
        kms_key_id: None,
        cluster: None,
        readers: Vec::new(),
        replica_of: None,
        replication: Vec::new(),
        ca_certificate: Some("rds-ca-rsa2048-g1".into()),
        backup_retention_days: 7,
        latest_restorable_time: Some(ago(SignedDuration::from_mins(5))),
        publicly_accessible: false,
        deletion_protection: true,
        created_at: Some(at("2025-01-01T00:00:00Z")),
        tags: Tags::new(),
    }
}

fn point(role: Role, age: SignedDuration, proof: Proof) -> Point {
    Point {
        id: format!("orders-{}", age.as_secs()),
        database: "orders".into(),
        role,
        status: "available".into(),
        taken_at: Some(ago(age)),
        proof: Some(proof),
        level: Some(Level::Content),
        kms_key_id: None,
    }
}

fn region_seen() -> RegionSeen {
    RegionSeen {
        instances: Ok(Vec::new()),
        points: Ok(Vec::new()),
        quotas: Ok(vec![Quota { name: "ManualSnapshots".into(), used: 10, max: 100 }]),
        certificates: Ok(BTreeMap::from([("rds-ca-rsa2048-g1".to_owned(), at("2061-05-21T00:00:00Z"))])),
        measures: Ok(BTreeMap::new()),
        keys: BTreeMap::new(),
    }
}

/// One database, a backup and a copy of an hour ago, all well.
pub(super) fn healthy() -> Seen {
    let mut at_home = region_seen();
    at_home.instances = Ok(vec![instance("orders")]);
    at_home.points = Ok(vec![point(Role::Backup, hours(1), Proof::Proven)]);
    at_home.measures = Ok(BTreeMap::from([(
        "orders".to_owned(),
        Measure { free_bytes: Some(50.0 * GIB), lag_seconds: None },
    )]));
    let mut there = region_seen();
    there.points = Ok(vec![point(Role::Copy, hours(1), Proof::Proven)]);
    let home_seen = HomeSeen {
        locks: Ok(Vec::new()),
        breakers: Ok(vec![Breaker::new(operation::Kind::Backup)]),
        stop: Ok(None),
        secrets: Ok(Vec::new()),
    };
    Seen { regions: BTreeMap::from([(home(), at_home), (west(), there)]), home: Some(home_seen) }
}

pub(super) fn expected() -> Expected {
    Expected {
        home: home(),
        targets: vec![west()],
        databases: BTreeSet::new(),
        scope: Scope::All,
        thresholds: Thresholds::default(),
    }
}

fn at_home(seen: &mut Seen) -> &mut RegionSeen {
    seen.regions.get_mut(&home()).unwrap()
}

fn there(seen: &mut Seen) -> &mut RegionSeen {
    seen.regions.get_mut(&west()).unwrap()
}

fn orders(seen: &mut Seen) -> &mut InstanceSeen {
    &mut at_home(seen).instances.as_mut().unwrap()[0]
}

fn short(assessment: &Assessment) -> Vec<String> {
    let findings = assessment.findings.iter();
    findings
        .map(|found| format!("{} {} {} {}", found.severity, found.region, found.subject, found.code))
        .collect()
}

/// What is found when this is changed about a healthy world.
fn check(what: &str, change: impl FnOnce(&mut Seen), findings: &[&str]) -> Assessment {
    let mut seen = healthy();
    change(&mut seen);
    let assessment = assess(&expected(), &seen, now());
    assert_eq!(short(&assessment), findings, "{what}");
    for finding in &assessment.findings {
        assert!(finding.message.contains(finding.region.as_str()), "{what}: says where: {}", finding.message);
        assert!(!finding.action.is_empty(), "{what}");
    }
    assessment
}

#[test]
fn a_healthy_system_has_no_findings_and_every_component_is_looked_at() {
    let assessment = check("healthy", |_| {}, &[]);
    assert_eq!(assessment.state, State::Healthy);
    assert_eq!(assessment.components.keys().copied().collect::<Vec<_>>(), Component::ALL);
    for component in Component::ALL {
        assert!(assessment.covers(*component, &home(), "anything"), "{component}");
    }
    let [orders] = &assessment.recoverable[..] else { panic!("{:?}", assessment.recoverable) };
    assert_eq!((orders.from.as_ref().unwrap().region.clone(), orders.rpo_seconds), (west(), Some(3_600)));
    assert_eq!(assessment.gauges.backup_age_seconds, BTreeMap::from([(home(), 3_600.0), (west(), 3_600.0)]));
    assert_eq!(assessment.gauges.storage_percent, BTreeMap::from([(home(), 50.0)]));
}

#[test]
fn a_status_is_judged_by_whether_the_database_serves_anybody() {
    for (status, finding) in [
        ("available", None),
        ("storage-optimization", None),
        ("backing-up", Some("info us-east-1 orders database-busy")),
        ("rebooting", Some("info us-east-1 orders database-busy")),
        ("stopped", Some("critical us-east-1 orders database-down")),
        ("storage-full", Some("critical us-east-1 orders database-down")),
        ("inaccessible-encryption-credentials", Some("critical us-east-1 orders database-down")),
        ("something-new", Some("warning us-east-1 orders database-status-unknown")),
    ] {
        let findings: Vec<&str> = finding.into_iter().collect();
        check(status, |seen| orders(seen).status = status.into(), &findings);
    }
}

#[test]
fn storage_is_judged_by_what_the_volume_may_grow_to() {
    for (used_percent, most, finding) in [
        (85.0, None, None),
        (85.1, None, Some("warning us-east-1 orders storage-nearly-full")),
        (95.0, None, Some("warning us-east-1 orders storage-nearly-full")),
        (95.1, None, Some("critical us-east-1 orders storage-nearly-full")),
        (100.0, None, Some("critical us-east-1 orders storage-nearly-full")),
        // 95.1 GiB of 200.
        (95.1, Some(200), None),
        (95.1, Some(110), Some("warning us-east-1 orders storage-nearly-full")),
        // A limit below what there is already adds nothing.
        (85.1, Some(50), Some("warning us-east-1 orders storage-nearly-full")),
    ] {
        let findings: Vec<&str> = finding.into_iter().collect();
        let change = |seen: &mut Seen| {
            orders(seen).max_allocated_storage_gb = most;
            let measure = Measure { free_bytes: Some((100.0 - used_percent) * GIB), lag_seconds: None };
            at_home(seen).measures = Ok(BTreeMap::from([("orders".to_owned(), measure)]));
        };
        check(&format!("{used_percent} {most:?}"), change, &findings);
    }
}

#[test]
fn unknown_storage_is_a_finding_unless_the_database_is_new_or_down() {
    let unknown = |seen: &mut Seen| at_home(seen).measures = Ok(BTreeMap::new());
    check("unknown", unknown, &["warning us-east-1 orders storage-unknown"]);
    let new = |seen: &mut Seen| {
        unknown(seen);
        orders(seen).created_at = Some(ago(SignedDuration::from_mins(20)));
    };
    check("new", new, &[]);
    let new_and_full = |seen: &mut Seen| {
        orders(seen).created_at = Some(now());
        let measure = Measure { free_bytes: Some(0.0), lag_seconds: None };
        at_home(seen).measures = Ok(BTreeMap::from([("orders".to_owned(), measure)]));
    };
    check("new and full", new_and_full, &["critical us-east-1 orders storage-nearly-full"]);
    let down = |seen: &mut Seen| {
        unknown(seen);
        orders(seen).status = "stopped".into();
    };
    check("down", down, &["critical us-east-1 orders database-down"]);
}

fn replica(seen: &mut Seen, lag: Option<f64>) {
    let mut replica = instance("orders-west");
    replica.replica_of = Some("arn:aws:rds:us-east-1:000000000000:db:orders".into());
    let status = ReplicationStatus { normal: true, status: "replicating".into(), message: String::new() };
    replica.replication = vec![status];
    there(seen).instances = Ok(vec![replica]);
    let measure = Measure { free_bytes: Some(50.0 * GIB), lag_seconds: lag };
    there(seen).measures = Ok(BTreeMap::from([("orders-west".to_owned(), measure)]));
}

#[test]
fn a_lag_of_minus_one_is_no_replication_and_an_unknown_one_is_not_good() {
    for (lag, rpo, finding) in [
        (Some(0.0), 0, None),
        (Some(300.0), 300, None),
        (Some(300.5), 301, Some("critical us-west-2 orders-west replication-lag")),
        (Some(-1.0), 3_600, Some("critical us-west-2 orders-west replication-stopped")),
        (None, 3_600, Some("warning us-west-2 orders-west replication-lag-unknown")),
    ] {
        let findings: Vec<&str> = finding.into_iter().collect();
        let assessment = check(&format!("{lag:?}"), |seen| replica(seen, lag), &findings);
        let [orders] = &assessment.recoverable[..] else { panic!("one database") };
        // Only a replica that replicates is a way back, and its lag is what would be lost.
        assert_eq!(orders.rpo_seconds, Some(rpo), "{lag:?}");
        let kind = if rpo == 3_600 { "copy" } else { "replica" };
        assert_eq!(orders.from.as_ref().unwrap().kind, kind, "{lag:?}");
        if let Some(lag) = lag.filter(|lag| *lag >= 0.0) {
            assert_eq!(assessment.gauges.lag_seconds, BTreeMap::from([((home(), west()), lag)]));
        }
    }
}

#[test]
fn what_rds_says_of_replication_counts_before_the_metric() {
    let broken = |seen: &mut Seen| {
        replica(seen, Some(0.0));
        let replica = &mut there(seen).instances.as_mut().unwrap()[0];
        replica.replication[0].normal = false;
        replica.replication[0].status = "error".into();
    };
    check("error", broken, &["critical us-west-2 orders-west replication-stopped"]);
    let without_metrics = |seen: &mut Seen| {
        broken(seen);
        there(seen).measures = Err(blind());
    };
    check(
        "error, no metrics",
        without_metrics,
        &[
            "critical us-west-2 orders-west replication-stopped",
            "warning us-west-2 CloudWatch's metrics unreachable",
            "warning us-west-2 CloudWatch's metrics unreachable",
        ],
    );
}

#[test]
fn a_replica_and_a_temporary_restore_need_no_backups() {
    let change = |seen: &mut Seen| {
        let mut replica = instance("orders-replica");
        replica.replica_of = Some("orders".into());
        let mut temporary = instance("lifeboat-tmp-1");
        temporary.tags = labels::mark(Role::Temporary, &operation(), Some("orders"));
        temporary.tags.insert(labels::EXPIRES_AT.into(), "2026-01-10T13:00:00Z".into());
        temporary.status = "stopped".into();
        at_home(seen).instances.as_mut().unwrap().extend([replica, temporary]);
        let measure = Measure { free_bytes: Some(50.0 * GIB), lag_seconds: Some(1.0) };
        at_home(seen).measures.as_mut().unwrap().insert("orders-replica".into(), measure);
    };
    check("a replica and a temporary one", change, &[]);
}

#[test]
fn the_age_of_a_backup_is_that_of_its_data_and_only_proven_ones_count() {
    for (age, finding) in [
        (hours(12), None),
        (hours(12) + SECOND, Some("warning us-east-1 orders backup-old")),
        (hours(24), Some("warning us-east-1 orders backup-old")),
        (hours(24) + SECOND, Some("critical us-east-1 orders backup-old")),
    ] {
        let findings: Vec<&str> = finding.into_iter().collect();
        let change = |seen: &mut Seen| {
            // A newer one that is not available, or has no time, or is only pending, changes nothing.
            let mut creating = point(Role::Backup, hours(1), Proof::Proven);
            creating.status = "creating".into();
            let mut timeless = point(Role::Backup, hours(1), Proof::Proven);
            timeless.taken_at = None;
            let pending = point(Role::Backup, hours(2), Proof::Pending);
            at_home(seen).points =
                Ok(vec![creating, point(Role::Backup, age, Proof::Proven), timeless, pending]);
        };
        check(&format!("{age:?}"), change, &findings);
    }
}

#[test]
fn a_database_says_by_a_tag_how_old_its_backup_may_be() {
    for (tag, findings) in [
        ("36", &[][..]),
        ("30", &["warning us-east-1 orders backup-old"][..]),
        ("0", &["critical us-east-1 orders backup-old", "warning us-east-1 orders tag-malformed"][..]),
        ("soon", &["critical us-east-1 orders backup-old", "warning us-east-1 orders tag-malformed"][..]),
    ] {
        let change = |seen: &mut Seen| {
            orders(seen).tags.insert(BACKUP_AGE_HOURS.into(), tag.into());
            at_home(seen).points = Ok(vec![point(Role::Backup, hours(36), Proof::Proven)]);
        };
        check(tag, change, findings);
    }
}

#[test]
fn a_covered_database_without_a_backup_is_critical_and_an_uncovered_one_is_not() {
    let without = |seen: &mut Seen| {
        at_home(seen).points = Ok(Vec::new());
        there(seen).points = Ok(Vec::new());
    };
    check("nothing is expected", without, &["info us-east-1 orders backup-not-expected"]);
    let mut seen = healthy();
    without(&mut seen);
    let mut named = expected();
    named.databases.insert("orders".into());
    assert_eq!(
        short(&assess(&named, &seen, now())),
        [
            "critical us-east-1 orders backup-missing",
            "critical us-east-1 orders nothing-elsewhere",
            "warning us-west-2 orders copy-missing",
        ]
    );
    orders(&mut seen).created_at = Some(ago(hours(12)));
    assert_eq!(
        short(&assess(&named, &seen, now())),
        [
            "info us-east-1 orders backup-missing",
            "info us-east-1 orders nothing-elsewhere",
            "info us-west-2 orders copy-missing",
        ],
        "its first backup may still come"
    );
}

#[test]
fn a_database_that_is_named_and_gone_is_missing() {
    let mut named = expected();
    named.databases.extend(["orders".to_owned(), "invoices".to_owned()]);
    let findings = short(&assess(&named, &healthy(), now()));
    assert_eq!(findings, ["critical us-east-1 invoices database-missing"]);
}

#[test]
fn the_newest_verdict_counts_and_a_proof_may_not_wait_for_ever() {
    use Proof::{Pending, Proven, Unproven};
    for (points, findings) in [
        (vec![(1, Proven), (2, Unproven)], &[][..]),
        (vec![(2, Proven), (1, Unproven)], &["critical us-east-1 orders proof-failed"][..]),
        (vec![(2, Proven), (1, Unproven), (0, Pending)], &["critical us-east-1 orders proof-failed"][..]),
        // Pending for exactly as long as a backup may be old, and a little longer.
        (vec![(13, Proven), (12, Pending)], &["warning us-east-1 orders backup-old"][..]),
        (
            vec![(14, Proven), (13, Pending)],
            &["warning us-east-1 orders backup-old", "warning us-east-1 orders proof-outstanding"][..],
        ),
        // Somebody gave up on it, and a later one is proven.
        (vec![(13, Pending), (1, Proven)], &[][..]),
    ] {
        let name = format!("{points:?}");
        let change = |seen: &mut Seen| {
            let of = |(age, proof)| point(Role::Backup, hours(age), proof);
            at_home(seen).points = Ok(points.into_iter().map(of).collect());
        };
        check(&name, change, findings);
    }
}

#[test]
fn copies_are_judged_region_by_region() {
    for (age, findings) in [
        (Some(hours(12)), &[][..]),
        (Some(hours(12) + SECOND), &["warning us-west-2 orders copy-old"][..]),
        (Some(hours(24) + SECOND), &["critical us-west-2 orders copy-old"][..]),
        (None, &["critical us-east-1 orders nothing-elsewhere", "warning us-west-2 orders copy-missing"][..]),
    ] {
        let change = |seen: &mut Seen| {
            let backups = [hours(1), hours(13)].map(|age| point(Role::Backup, age, Proof::Proven));
            at_home(seen).points = Ok(backups.into());
            let unproven = point(Role::Copy, hours(1), Proof::Unproven);
            let copies = age.map(|age| point(Role::Copy, age, Proof::Proven)).into_iter().chain([unproven]);
            there(seen).points = Ok(copies.collect());
        };
        check(&format!("{age:?}"), change, findings);
    }
}

#[test]
fn a_first_copy_may_be_on_its_way() {
    let change = |seen: &mut Seen| there(seen).points = Ok(Vec::new());
    check(
        "the only backup is an hour old",
        change,
        &["info us-east-1 orders nothing-elsewhere", "info us-west-2 orders copy-missing"],
    );
}

#[test]
fn a_database_says_by_a_tag_where_copies_are_expected() {
    let without_copies = |tag: &'static str| {
        move |seen: &mut Seen| {
            orders(seen).tags.insert(COPY_REGIONS.into(), tag.into());
            at_home(seen).points =
                Ok([hours(1), hours(13)].map(|age| point(Role::Backup, age, Proof::Proven)).into());
            there(seen).points = Ok(Vec::new());
        }
    };
    check("none", without_copies("none"), &[]);
    let missing = ["critical us-east-1 orders nothing-elsewhere", "warning us-west-2 orders copy-missing"];
    check("us-west-2", without_copies("us-west-2"), &missing);
    let malformed = [&missing[..1], &["warning us-east-1 orders tag-malformed"][..], &missing[1..]].concat();
    let mut sorted = malformed.clone();
    sorted.swap(1, 2);
    check("eu-west-1", without_copies("eu-west-1"), &sorted);
}

fn key_seen(state: &str) -> KeySeen {
    let facts =
        KeyFacts { state: state.into(), deletion_date: Some(at("2026-01-17T00:00:00Z")), ..key("us-west-2") };
    KeySeen { purpose: "copies".into(), facts: Observed::Found(facts) }
}

#[test]
fn a_key_that_does_not_work_is_critical_and_what_is_under_it_is_no_way_back() {
    let arn = key("us-west-2").arn;
    let id = KmsKeyId::parse(arn.clone()).unwrap();
    for (seen_key, code) in [
        (key_seen("Disabled"), Some("key-disabled")),
        (key_seen("PendingDeletion"), Some("key-pending-deletion")),
        (key_seen("Unavailable"), Some("key-unusable")),
        (KeySeen { purpose: "copies".into(), facts: Observed::Missing }, Some("key-missing")),
        (key_seen("Enabled"), None),
    ] {
        let name = format!("{code:?}");
        let finding = code.map(|code| format!("critical us-west-2 {arn} {code}"));
        let elsewhere = code.map(|_| "critical us-east-1 orders nothing-elsewhere".to_owned());
        let findings: Vec<String> = elsewhere.into_iter().chain(finding).collect();
        let findings: Vec<&str> = findings.iter().map(String::as_str).collect();
        let change = |seen: &mut Seen| {
            let backups = [hours(1), hours(13)].map(|age| point(Role::Backup, age, Proof::Proven));
            at_home(seen).points = Ok(backups.into());
            there(seen).points.as_mut().unwrap()[0].kms_key_id = Some(arn.clone());
            there(seen).keys.insert(id.clone(), seen_key);
        };
        check(&name, change, &findings);
    }
    // Not to know a key's state is not to know that it is gone.
    let unknown = |seen: &mut Seen| {
        there(seen).points.as_mut().unwrap()[0].kms_key_id = Some(arn.clone());
        let unreachable = KeySeen { purpose: "copies".into(), facts: Observed::Unreachable(blind()) };
        there(seen).keys.insert(id.clone(), unreachable);
    };
    let assessment = check("unreachable", unknown, &[&format!("warning us-west-2 {arn} unreachable")]);
    assert!(!assessment.covers(Component::Keys, &west(), &arn));
}

#[test]
fn the_date_of_a_keys_deletion_is_told() {
    let change = |seen: &mut Seen| {
        there(seen).keys.insert(KmsKeyId::parse("alias/dr").unwrap(), key_seen("PendingDeletion"));
    };
    let assessment = check("pending", change, &["critical us-west-2 alias/dr key-pending-deletion"]);
    assert!(assessment.findings[0].message.contains("2026-01-17T00:00:00Z"));
}

#[test]
fn quotas_are_judged_by_their_use() {
    for (name, used, finding) in [
        ("ManualSnapshots", 79, None),
        ("ManualSnapshots", 80, Some("warning us-west-2 ManualSnapshots quota-nearly-used")),
        ("ManualSnapshots", 94, Some("warning us-west-2 ManualSnapshots quota-nearly-used")),
        ("ManualSnapshots", 95, Some("critical us-west-2 ManualSnapshots quota-nearly-used")),
        ("ManualClusterSnapshots", 95, Some("critical us-west-2 ManualClusterSnapshots quota-nearly-used")),
        // Nothing that Lifeboat does runs into this one.
        ("EventSubscriptions", 100, None),
    ] {
        let findings: Vec<&str> = finding.into_iter().collect();
        let quota = Quota { name: name.into(), used, max: 100 };
        check(&format!("{name} {used}"), |seen| there(seen).quotas = Ok(vec![quota]), &findings);
    }
}

#[test]
fn leases_are_over_after_a_grace_and_locks_at_their_end() {
    let tags = |expiry: Timestamp| {
        let mut tags = labels::mark(Role::Temporary, &operation(), Some("orders"));
        tags.insert(labels::EXPIRES_AT.into(), expiry.to_string());
        tags
    };
    for (late, finding) in
        [(LEASE_GRACE, None), (LEASE_GRACE + SECOND, Some("warning us-east-1 lifeboat/tmp/1 lease-expired"))]
    {
        let findings: Vec<&str> = finding.into_iter().collect();
        let secret = SecretSeen { name: "lifeboat/tmp/1".into(), tags: tags(ago(late)) };
        check(&format!("{late:?}"), |seen| seen.home.as_mut().unwrap().secrets = Ok(vec![secret]), &findings);
        let mut temporary = instance("lifeboat-tmp-1");
        temporary.tags = tags(ago(late));
        let finding = finding.map(|_| "warning us-west-2 lifeboat-tmp-1 lease-expired");
        let findings: Vec<&str> = finding.into_iter().collect();
        check(&format!("{late:?}"), |seen| there(seen).instances = Ok(vec![temporary]), &findings);
    }
    for (until, finding) in
        [(now(), None), (now() - SECOND, Some("warning us-east-1 lock#orders lock-expired"))]
    {
        let findings: Vec<&str> = finding.into_iter().collect();
        let lock = Lock {
            operation_id: Lock::key("orders"),
            kind: "lock".into(),
            resource_id: "orders".into(),
            owner: operation(),
            owner_execution: ExecutionArn::parse("arn:aws:states:us-east-1:1:execution:m:x").unwrap(),
            started_at: ago(hours(13)),
            lease_until: until,
            version: 1,
        };
        check(&format!("{until}"), |seen| seen.home.as_mut().unwrap().locks = Ok(vec![lock]), &findings);
    }
}

#[test]
fn certificates_are_judged_by_the_time_that_is_left() {
    let day = hours(24);
    for (left, finding) in [
        (day * 90, None),
        (day * 90 - SECOND, Some("warning us-east-1 orders certificate-expires")),
        (day * 30, Some("warning us-east-1 orders certificate-expires")),
        (day * 30 - SECOND, Some("critical us-east-1 orders certificate-expires")),
        (-SECOND, Some("critical us-east-1 orders certificate-expires")),
    ] {
        let findings: Vec<&str> = finding.into_iter().collect();
        let authorities = BTreeMap::from([("rds-ca-rsa2048-g1".to_owned(), now() + left)]);
        check(&format!("{left:?}"), |seen| at_home(seen).certificates = Ok(authorities), &findings);
    }
    let change = |seen: &mut Seen| at_home(seen).certificates = Ok(BTreeMap::new());
    check("unknown", change, &["warning us-east-1 orders certificate-unknown"]);
}

#[test]
fn point_in_time_recovery_may_be_off_but_not_behind() {
    let minutes = SignedDuration::from_mins;
    for (retention, lag, finding) in [
        (7, minutes(15), None),
        (7, minutes(15) + SECOND, Some("warning us-east-1 orders recovery-lag")),
        (7, minutes(60), Some("warning us-east-1 orders recovery-lag")),
        (7, minutes(60) + SECOND, Some("critical us-east-1 orders recovery-lag")),
        (0, minutes(600), Some("info us-east-1 orders recovery-off")),
    ] {
        let findings: Vec<&str> = finding.into_iter().collect();
        let change = |seen: &mut Seen| {
            orders(seen).backup_retention_days = retention;
            orders(seen).latest_restorable_time = Some(ago(lag));
        };
        check(&format!("{retention} {lag:?}"), change, &findings);
    }
}

#[test]
fn breakers_and_the_emergency_stop_are_told() {
    for status in [BreakerStatus::Open, BreakerStatus::HalfOpen] {
        let mut breaker = Breaker::new(operation::Kind::Backup);
        breaker.status = status;
        let change = |seen: &mut Seen| seen.home.as_mut().unwrap().breakers = Ok(vec![breaker]);
        check("breaker", change, &["critical us-east-1 breaker#backup breaker-open"]);
    }
    for (in_force, finding) in
        [(true, Some("warning us-east-1 emergency-stop emergency-stop")), (false, None)]
    {
        let findings: Vec<&str> = finding.into_iter().collect();
        let stop = EmergencyStop {
            operation_id: EmergencyStop::KEY.into(),
            in_force,
            by: "ops".into(),
            reason: "drill".into(),
            at: now(),
            set_at: None,
            version: 1,
        };
        check("stop", |seen| seen.home.as_mut().unwrap().stop = Ok(Some(stop)), &findings);
    }
}

#[test]
fn settings_that_make_a_disaster_likelier_are_told() {
    let change = |seen: &mut Seen| {
        let orders = orders(seen);
        (orders.publicly_accessible, orders.deletion_protection, orders.encrypted) = (true, false, false);
    };
    check(
        "settings",
        change,
        &[
            "warning us-east-1 orders publicly-accessible",
            "info us-east-1 orders deletion-protection-off",
            "info us-east-1 orders unencrypted",
        ],
    );
}

#[test]
fn a_look_that_failed_is_a_finding_of_its_own_and_never_missing() {
    let change = |seen: &mut Seen| {
        *there(seen) = RegionSeen {
            instances: Err(blind()),
            points: Err(blind()),
            quotas: Err(blind()),
            certificates: Err(blind()),
            measures: Err(blind()),
            keys: BTreeMap::new(),
        };
    };
    let assessment = check(
        "a Region that cannot be reached",
        change,
        &[
            "warning us-west-2 the Region's instances unreachable",
            "warning us-west-2 the Region's instances unreachable",
            "warning us-west-2 the Region's instances unreachable",
            "warning us-west-2 the Region's snapshots unreachable",
            "warning us-west-2 the account's quotas unreachable",
            "warning us-west-2 the Region's instances unreachable",
        ],
    );
    assert_eq!(assessment.state, State::Degraded);
    assert_eq!(assessment.unreachable(), 6);
    for component in [Component::Database, Component::Copies, Component::Quotas, Component::Keys] {
        assert!(!assessment.covers(component, &west(), "orders"), "{component}");
    }
    assert!(!assessment.covers(Component::Copies, &home(), "orders"), "what is elsewhere is not known");
    assert_eq!(assessment.recoverable[0].not_looked_at, [west()]);
    assert_eq!(assessment.recoverable[0].from, None);

    let change = |seen: &mut Seen| {
        at_home(seen).instances = Err(blind());
        at_home(seen).points = Err(blind());
        let home = seen.home.as_mut().unwrap();
        (home.locks, home.breakers, home.stop, home.secrets) =
            (Err(blind()), Err(blind()), Err(blind()), Err(blind()));
    };
    let mut seen = healthy();
    change(&mut seen);
    let assessment = assess(&expected(), &seen, now());
    assert!(
        assessment.findings.iter().all(|finding| finding.code == Code::Unreachable),
        "{:?}",
        short(&assessment)
    );
    for component in [Component::Backup, Component::Proof, Component::Leases, Component::Control] {
        assert!(!assessment.covers(component, &home(), "orders"), "{component}");
    }
    assert_eq!(assessment.recoverable.len(), 1, "its copy there is known all the same");
}

#[test]
fn a_narrow_scope_judges_only_what_it_names() {
    let mut seen = healthy();
    let mut invoices = instance("invoices");
    invoices.status = "failed".into();
    at_home(&mut seen).instances.as_mut().unwrap().push(invoices);
    there(&mut seen).quotas = Ok(vec![Quota { name: "ManualSnapshots".into(), used: 100, max: 100 }]);
    let within = |scope: Scope| assess(&Expected { scope, ..expected() }, &seen, now());

    let one = within(Scope::Databases(BTreeSet::from(["orders".to_owned()])));
    assert_eq!((short(&one), one.state), (Vec::new(), State::Healthy));
    assert!(one.covers(Component::Database, &home(), "orders"));
    assert!(!one.covers(Component::Database, &home(), "invoices"));
    assert!(!one.covers(Component::Quotas, &west(), "ManualSnapshots"));

    let there_only = within(Scope::Region(west()));
    assert_eq!(short(&there_only), ["critical us-west-2 ManualSnapshots quota-nearly-used"]);
    assert!(!there_only.covers(Component::Database, &home(), "orders"));

    let gone = within(Scope::Databases(BTreeSet::from(["typo".to_owned()])));
    assert_eq!(short(&gone), ["critical us-east-1 typo database-missing"]);
}

#[test]
fn the_keys_that_matter_are_the_configured_ones_and_those_in_use_up_to_a_bound() {
    let mut seen = healthy();
    let named = |n: usize| format!("arn:aws:kms:us-west-2:000000000000:key/{n}");
    let points = (0..MOST_KEYS + 5)
        .map(|n| Point { kms_key_id: Some(named(n)), ..point(Role::Copy, hours(1), Proof::Proven) });
    let mut points: Vec<Point> = points.collect();
    points.push(Point { kms_key_id: Some(named(9_999)), ..point(Role::Copy, hours(1), Proof::Unproven) });
    there(&mut seen).points = Ok(points);
    orders(&mut seen).kms_key_id = Some("arn:aws:kms:us-east-1:000000000000:key/db".into());
    let configured = [
        (west(), KmsKeyId::parse("alias/dr").unwrap(), "copies"),
        (region("eu-west-1"), KmsKeyId::parse("k").unwrap(), "copies"),
    ];
    let keys = keys_that_matter(&Scope::All, &seen.regions, &configured);
    assert_eq!(keys[&west()].len(), MOST_KEYS);
    assert_eq!(keys[&west()][&KmsKeyId::parse("alias/dr").unwrap()], "copies");
    assert!(
        !keys[&west()].contains_key(&KmsKeyId::parse(named(9_999)).unwrap()),
        "no recovery point is under it"
    );
    assert_eq!(keys[&home()].values().collect::<Vec<_>>(), ["databases"]);
    assert!(!keys.contains_key(&region("eu-west-1")), "only what is looked at");
}

#[test]
fn a_snapshot_is_a_point_of_ours_by_its_tags_alone() {
    let mut tags = labels::mark(Role::Backup, &operation(), Some("orders"));
    let read = |tags: &Tags| Point::read("orders-1", "available", Some(now()), None, tags);
    assert!(!read(&tags).unwrap().is_recovery_point(), "no verdict");
    tags.insert(labels::PROOF.into(), "proven".into());
    assert!(read(&tags).unwrap().is_recovery_point());
    tags.insert(labels::ROLE.into(), "temporary".into());
    assert_eq!(read(&tags), None);
    assert_eq!(read(&Tags::new()), None);
}

#[test]
fn every_word_of_a_code_is_its_own_and_reads_back() {
    let words: BTreeSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(words.len(), Code::ALL.len());
    for code in Code::ALL {
        assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
    }
    for component in Component::ALL {
        assert_eq!(serde_json::to_value(component).unwrap(), component.as_str());
    }
}

#[test]
fn a_backup_is_not_called_proven_deeper_than_it_is() {
    let info = &["info us-east-1 orders proof-shallow"][..];
    for (level, findings) in [
        (Some(Level::Content), &[][..]),
        (Some(Level::Structure), &["warning us-east-1 orders proof-shallow"][..]),
        (Some(Level::Quick), info),
        (None, info),
    ] {
        let change = |seen: &mut Seen| {
            // An older one that went deeper is not the one that would be restored.
            let newest = Point { level, ..point(Role::Backup, hours(1), Proof::Proven) };
            at_home(seen).points = Ok(vec![point(Role::Backup, hours(2), Proof::Proven), newest]);
            there(seen).points = Ok(vec![Point { level, ..point(Role::Copy, hours(1), Proof::Proven) }]);
        };
        let assessment = check(&format!("{level:?}"), change, findings);
        let [orders] = &assessment.recoverable[..] else { panic!("{:?}", assessment.recoverable) };
        assert_eq!(orders.from.as_ref().unwrap().proof_level, level, "what would be left says it too");
        let degraded = level == Some(Level::Structure);
        assert_eq!(assessment.state, if degraded { State::Degraded } else { State::Healthy }, "{level:?}");
    }
}

#[test]
fn a_clusters_readers_are_judged_by_their_lag_and_its_writer_is_not() {
    let lag = |lag_seconds| Measure { free_bytes: None, lag_seconds };
    let member = |id: &str| InstanceSeen {
        engine: "aurora-postgresql".into(),
        allocated_storage_gb: 1,
        cluster: Some("shop".into()),
        backup_retention_days: 1,
        ..instance(id)
    };
    for (reader, finding) in [
        (lag(Some(0.02)), None),
        (lag(Some(300.0)), None),
        (lag(Some(301.0)), Some("critical us-east-1 shop-2 replication-lag")),
        (lag(Some(-1.0)), Some("critical us-east-1 shop-2 replication-stopped")),
        (lag(None), Some("warning us-east-1 shop-2 replication-lag-unknown")),
    ] {
        let change = |seen: &mut Seen| {
            let shop = InstanceSeen {
                engine: "aurora-postgresql".into(),
                allocated_storage_gb: 0,
                ca_certificate: None,
                readers: vec!["shop-2".into()],
                tags: Tags::from([(BACKUP_AGE_HOURS.to_owned(), "12".to_owned())]),
                ..instance("shop")
            };
            let of_shop = |point: Point| Point { database: "shop".into(), ..point };
            at_home(seen).instances.as_mut().unwrap().extend([shop, member("shop-1"), member("shop-2")]);
            at_home(seen).measures.as_mut().unwrap().insert("shop-2".into(), reader);
            at_home(seen).points.as_mut().unwrap().push(of_shop(point(
                Role::Backup,
                hours(1),
                Proof::Proven,
            )));
            there(seen).points.as_mut().unwrap().push(of_shop(point(Role::Copy, hours(1), Proof::Proven)));
        };
        let findings: Vec<&str> = finding.into_iter().collect();
        let assessment = check(&format!("{reader:?}"), change, &findings);
        let worst = assessment.gauges.lag_seconds.get(&(home(), home())).copied();
        assert_eq!(worst, reader.lag_seconds.filter(|lag| *lag >= 0.0));
    }
}
