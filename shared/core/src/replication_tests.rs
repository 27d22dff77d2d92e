#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
use super::*;
use crate::fixtures::{at, cluster_snapshot, key, operation, region, snapshot};

const KEY: &str = "arn:aws:kms:us-west-2:000000000000:key/1";

fn order() -> CopyOrder {
    CopyOrder {
        operation: operation(),
        database: None,
        source: SnapshotArn::parse("arn:aws:rds:us-east-1:000000000000:snapshot:orders-1").unwrap(),
        region: region("us-west-2"),
        key: KmsKeyId::parse("alias/dr").unwrap(),
        tags: Tags::from([("team".into(), "data".into()), ("aws:x".into(), "1".into())]),
        expires_at: None,
        started_at: started(),
        earlier: None,
    }
}

fn started() -> Timestamp {
    at("2026-01-02T04:00:00Z")
}

fn soon() -> Timestamp {
    at("2026-01-02T04:10:00Z")
}

fn copy(status: &str) -> SnapshotFacts {
    let mut facts = snapshot(status);
    facts.arn = facts.arn.replace("us-east-1", "us-west-2");
    facts.region = region("us-west-2");
    facts.encrypted = true;
    facts.kms_key_id = Some(KEY.into());
    facts.created_at = Some(at("2026-01-02T04:00:10Z"));
    facts.source_arn = Some(order().source.to_string());
    facts.tags = labels::mark(Role::Copy, &operation(), Some("orders"));
    facts.tags.insert(labels::SOURCE_ARN.into(), order().source.to_string());
    facts
}

fn step(source: SnapshotFacts, copy: Option<SnapshotFacts>, now: Timestamp) -> Result<CopyStep> {
    decide(&order(), KEY, Observed::Found(source), copy.map_or(Observed::Missing, Observed::Found), now)
}

#[test]
fn an_order_is_checked_before_anything_is_asked() {
    let known = [region("us-west-2"), region("eu-west-1")];
    let id = order().source.id().clone();
    check_order(&order(), &id, &known).unwrap();
    let broken = |change: fn(&mut CopyOrder)| {
        let mut order = order();
        change(&mut order);
        check_order(&order, &id, &known).unwrap_err().name()
    };
    assert_eq!(broken(|order| order.region = region("ap-south-1")), ErrorName::RegionUnknown);
    assert_eq!(broken(|order| order.region = region("us-east-1")), ErrorName::InvalidInput);
    assert_eq!(
        broken(|order| order.key = KmsKeyId::parse(KEY.replace("west-2", "east-1")).unwrap()),
        ErrorName::KeyWrongRegion
    );
    assert_eq!(
        broken(|order| {
            order.tags.insert("lifeboat:x".into(), "1".into());
        }),
        ErrorName::InvalidInput
    );
    let other = SnapshotId::parse("orders-2").unwrap();
    assert_eq!(check_order(&order(), &other, &known).unwrap_err().name(), ErrorName::InvalidInput);
}

#[test]
fn a_key_is_resolved_and_must_be_usable_there() {
    let with = |state: &str, usage: &str, spec: &str| {
        let mut facts = key("us-west-2");
        facts.state = state.into();
        facts.usage = Some(usage.into());
        facts.spec = Some(spec.into());
        Observed::Found(facts)
    };
    let good = "SYMMETRIC_DEFAULT";
    assert_eq!(check_key(&order(), with("Enabled", "ENCRYPT_DECRYPT", good)).unwrap(), KEY);
    for (seen, name) in [
        (Observed::Missing, ErrorName::KeyMissing),
        (Observed::Found(key("us-east-1")), ErrorName::KeyWrongRegion),
        (with("Disabled", "ENCRYPT_DECRYPT", good), ErrorName::KeyDisabled),
        (with("PendingDeletion", "ENCRYPT_DECRYPT", good), ErrorName::KeyPendingDeletion),
        (with("PendingReplicaDeletion", "ENCRYPT_DECRYPT", good), ErrorName::KeyPendingDeletion),
        (with("PendingImport", "ENCRYPT_DECRYPT", good), ErrorName::KeyNotAccessible),
        (with("Unavailable", "ENCRYPT_DECRYPT", good), ErrorName::KeyNotAccessible),
        (with("Enabled", "SIGN_VERIFY", "RSA_2048"), ErrorName::KeyNotAccessible),
        (
            Observed::Unreachable(DrError::new(ErrorName::AccessDenied, "reading the key")),
            ErrorName::AccessDenied,
        ),
    ] {
        assert_eq!(check_key(&order(), seen).unwrap_err().name(), name);
    }
}

#[test]
fn a_missing_copy_is_asked_for_with_everything_it_shall_carry() {
    let mut source = snapshot("available");
    let known = [
        (labels::PROOF_LEVEL, "content"),
        (labels::PROVEN_AT, "2026-01-02T04:00:00Z"),
        (labels::PROVEN_IN, "us-east-1"),
        (labels::REPORT, "operations/proof/report.json"),
    ];
    source.tags.extend(known.map(|(key, value)| (key.to_owned(), value.to_owned())));
    let CopyStep::Copy(request) = step(source, None, soon()).unwrap() else { panic!() };
    let tags = [
        (labels::DATABASE, "orders"),
        (labels::OPERATION_ID, "backup-0123456789abcdef"),
        (labels::PROOF, "proven"),
        (labels::PROOF_LEVEL, "content"),
        (labels::PROVEN_AT, "2026-01-02T04:00:00Z"),
        (labels::PROVEN_IN, "us-east-1"),
        (labels::ROLE, "copy"),
        (labels::SOURCE_ARN, "arn:aws:rds:us-east-1:000000000000:snapshot:orders-1"),
        ("team", "data"),
    ];
    assert_eq!(
        *request,
        CopyRequest {
            source: order().source,
            id: SnapshotId::parse("orders-1").unwrap(),
            kms_key_arn: KEY.into(),
            option_group: None,
            tags: tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        }
    );
}

#[test]
fn an_option_group_of_ones_own_is_asked_for_in_the_destination() {
    let mut source = snapshot("available");
    source.option_group = Some("orders-options".into());
    let CopyStep::Copy(request) = step(source, None, soon()).unwrap() else { panic!() };
    assert_eq!(request.option_group.as_deref(), Some("orders-options"));
}

#[test]
fn an_automated_snapshot_is_copied_under_a_legal_name() {
    let mut order = order();
    order.source = SnapshotArn::parse("arn:aws:rds:us-east-1:000000000000:snapshot:rds:orders-2026").unwrap();
    assert_eq!(order.copy_id().as_str(), "rds-orders-2026");
}

#[test]
fn what_is_there_decides_the_step() {
    let last = started() + TIMEOUT;
    let late = last + SignedDuration::from_secs(1);
    for (source, there, now, expected) in [
        ("available", None, soon(), Ok("copy")),
        ("creating", None, soon(), Ok("wait")),
        ("creating", None, late, Err(ErrorName::ReplicationTimeout)),
        ("failed", None, soon(), Err(ErrorName::SnapshotFailed)),
        ("available", Some("pending"), soon(), Ok("wait")),
        ("available", Some("creating"), soon(), Ok("wait")),
        ("available", Some("copying"), last, Ok("wait")),
        ("available", Some("something-new"), soon(), Ok("wait")),
        ("available", Some("copying"), late, Err(ErrorName::ReplicationTimeout)),
        ("available", Some("failed"), soon(), Ok("start over")),
        ("available", Some("available"), soon(), Ok("done")),
        ("available", Some("available"), late, Ok("done")),
    ] {
        let outcome = step(snapshot(source), there.map(copy), now).map_err(|error| error.name());
        let outcome = outcome.map(|step| match step {
            CopyStep::Copy(_) => "copy",
            CopyStep::Wait { .. } => "wait",
            CopyStep::StartOver { .. } => "start over",
            CopyStep::Done(_) => "done",
        });
        assert_eq!(outcome, expected, "{source} {there:?} at {now}");
    }
}

#[test]
fn not_being_able_to_look_is_not_a_missing_copy() {
    let unreachable = Observed::Unreachable(DrError::new(ErrorName::AwsUnreachable, "looking"));
    let outcome = decide(&order(), KEY, Observed::Found(snapshot("available")), unreachable, soon());
    assert_eq!(outcome.unwrap_err().name(), ErrorName::AwsUnreachable);
    let gone = decide(&order(), KEY, Observed::Missing, Observed::Missing, soon());
    assert_eq!(gone.unwrap_err().name(), ErrorName::SnapshotMissing);
}

#[test]
fn only_this_operations_copy_of_this_snapshot_is_adopted() {
    let changes: [(&str, &str); 3] = [
        (labels::OPERATION_ID, "backup-ffffffffffffffff"),
        (labels::ROLE, "backup"),
        (labels::SOURCE_ARN, "arn:aws:rds:us-east-1:000000000000:snapshot:orders-0"),
    ];
    for (tag, value) in changes {
        for status in ["available", "copying", "failed"] {
            let mut there = copy(status);
            there.tags.insert(tag.into(), value.into());
            let error = step(snapshot("available"), Some(there), soon()).unwrap_err();
            assert_eq!(error.name(), ErrorName::SnapshotNotOurs, "{tag} {status}");
        }
    }
}

#[test]
fn a_failed_copy_is_tried_again_once() {
    let mark = labels::copy_retried(&order().region);
    let first = step(snapshot("available"), Some(copy("failed")), soon()).unwrap();
    let CopyStep::StartOver { mark: tags, delete, source_arn, .. } = first else { panic!() };
    assert_eq!(tags, Tags::from([(mark.clone(), soon().to_string())]));
    assert_eq!((delete.as_str(), source_arn), ("orders-1", snapshot("available").arn));

    // A crash after the mark, before the deletion: the same copy is still the first one.
    let mut marked = snapshot("available");
    marked.tags.insert(mark, soon().to_string());
    let again = step(marked.clone(), Some(copy("failed")), at("2026-01-02T04:11:00Z")).unwrap();
    assert!(matches!(again, CopyStep::StartOver { mark, .. } if mark.is_empty()));

    let mut second = copy("failed");
    second.created_at = Some(at("2026-01-02T04:12:00Z"));
    let error = step(marked.clone(), Some(second.clone()), at("2026-01-02T05:00:00Z")).unwrap_err();
    assert_eq!(error.name(), ErrorName::ReplicationFailed);
    assert_eq!(error.leftovers(), &Leftovers::Remaining(vec![second.arn.clone()]));

    second.created_at = None;
    let error = step(marked, Some(second), at("2026-01-02T05:00:00Z")).unwrap_err();
    assert_eq!(error.name(), ErrorName::ReplicationFailed, "without a time nothing is deleted again");
}

#[test]
fn what_arrived_is_compared_with_what_was_asked_for() {
    type Change = fn(&mut SnapshotFacts);
    let CopyStep::Done(arrived) = step(snapshot("available"), Some(copy("available")), soon()).unwrap()
    else {
        panic!()
    };
    assert_eq!(arrived.kms_key_arn, KEY);
    assert_eq!(arrived.original_snapshot_create_time, at("2026-01-02T03:00:00Z"));
    let changes: [(&str, Change); 6] = [
        ("encryption", |copy| copy.encrypted = false),
        ("key", |copy| copy.kms_key_id = Some(KEY.replace("key/1", "key/2"))),
        ("size", |copy| copy.size_gb = 21),
        ("engine", |copy| copy.engine_version = "16.5".into()),
        ("creation time", |copy| copy.original_created_at = copy.created_at),
        ("creation time", |copy| copy.original_created_at = None),
    ];
    for (what, change) in changes {
        let mut there = copy("available");
        change(&mut there);
        let error = step(snapshot("available"), Some(there), soon()).unwrap_err();
        assert_eq!(error.name(), ErrorName::ReplicationMismatch, "{what}");
        assert!(error.what().contains(what), "{what}: {error}");
    }
}

#[test]
fn the_two_meanings_of_the_quota_are_told_apart() {
    let limit = |message, now| decide_limit(&order(), message, now).map_err(|error| error.name());
    let slots = "Cannot copy more than 20 snapshots across regions";
    let quota = "Cannot create more than 100 manual snapshots";
    let patience = started() + UNKNOWN_LIMIT_PATIENCE;
    let later = patience + SignedDuration::from_secs(1);
    for (message, now, expected) in [
        (slots, soon(), Ok(())),
        (slots, later, Ok(())),
        (slots, started() + TIMEOUT + SignedDuration::from_secs(1), Err(ErrorName::ReplicationTimeout)),
        (quota, soon(), Err(ErrorName::SnapshotQuotaExceeded)),
        ("a new wording", patience, Ok(())),
        ("a new wording", later, Err(ErrorName::SnapshotQuotaExceeded)),
    ] {
        let outcome = limit(message, now).map(|step| assert!(matches!(step, CopyStep::Wait { .. })));
        assert_eq!(outcome, expected, "{message} at {now}");
    }
}

#[test]
fn pauses_grow_with_the_size() {
    let pause = |size_gb| {
        let copy = SnapshotFacts { size_gb, ..snapshot("copying") };
        match wait(&order(), &snapshot("available"), &copy, started()) {
            CopyStep::Wait { pause, .. } => pause.seconds,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!([pause(0), pause(20), pause(1_000), pause(60_000)], [5, 5, 50, 120]);
}

#[test]
fn a_copy_is_waited_for_by_what_it_took_before_and_says_so_but_not_while_it_waits_for_a_slot() {
    let earlier = Earlier {
        count: 2,
        least_seconds: 1_700,
        expected_seconds: 1_800,
        most_seconds: 1_800,
        of: "2 earlier copies of orders".into(),
    };
    let order = CopyOrder { earlier: Some(earlier), ..order() };
    let now = started() + SignedDuration::from_secs(10);
    let copying = SnapshotFacts { percent: 0, ..snapshot("copying") };
    let CopyStep::Wait { pause, step, .. } = wait(&order, &snapshot("available"), &copying, now) else {
        panic!("it is being copied")
    };
    // 1,578 s until shortly before the shortest, in six parts.
    assert_eq!(pause.seconds, 263);
    assert_eq!(pause.why.unwrap(), "expected 1800 s from 2 earlier copies of orders");
    let step = step.unwrap();
    assert_eq!((step.region.as_str(), step.engine.as_str(), step.size_gb), ("us-west-2", "postgres", 20));
    let slots = decide_limit(&order, "Cannot copy more than 20 snapshots across regions", now).unwrap();
    let CopyStep::Wait { pause, step: None, .. } = slots else { panic!("it waits for a slot: {slots:?}") };
    assert_eq!((pause.seconds, pause.why), (30, None));
}

#[test]
fn the_key_comes_from_the_request_or_the_configuration() {
    let configured = BTreeMap::from([(region("us-west-2"), KmsKeyId::parse("alias/configured").unwrap())]);
    let asked = KmsKeyId::parse("alias/asked").unwrap();
    assert_eq!(key_for(&region("us-west-2"), Some(asked.clone()), &configured).unwrap(), asked);
    assert_eq!(key_for(&region("us-west-2"), None, &configured).unwrap().as_str(), "alias/configured");
    assert_eq!(key_for(&region("eu-west-1"), None, &configured).unwrap_err().name(), ErrorName::KeyMissing);
}

fn cluster_order() -> CopyOrder {
    let source = "arn:aws:rds:us-east-1:000000000000:cluster-snapshot:orders-1";
    CopyOrder { source: SnapshotArn::parse(source).unwrap(), ..order() }
}

fn cluster_step(source: SnapshotFacts, copy: Option<SnapshotFacts>) -> Result<CopyStep> {
    let copy = copy.map_or(Observed::Missing, Observed::Found);
    decide(&cluster_order(), KEY, Observed::Found(source), copy, soon())
}

#[test]
fn a_copy_of_a_cluster_snapshot_carries_the_age_that_rds_does_not_report() {
    let source = cluster_snapshot("available");
    let CopyStep::Copy(request) = cluster_step(source.clone(), None).unwrap() else { panic!() };
    assert_eq!(request.source.kind(), DatabaseKind::Cluster);
    assert_eq!(request.tags[labels::TAKEN_AT], source.created_at.unwrap().to_string());
    let mut copy = cluster_snapshot("available");
    copy.kms_key_id = Some(KEY.into());
    copy.created_at = Some(at("2026-01-02T04:09:00Z"));
    copy.source_arn = Some(cluster_order().source.to_string());
    copy.tags = request.tags;
    // Aurora reports no size that could be compared.
    copy.size_gb = 1;
    let CopyStep::Done(arrived) = cluster_step(source.clone(), Some(copy.clone())).unwrap() else { panic!() };
    assert_eq!(Some(arrived.original_snapshot_create_time), source.created_at);
    copy.tags.insert(labels::TAKEN_AT.into(), "2026-01-01T00:00:00Z".into());
    let error = cluster_step(source, Some(copy)).unwrap_err();
    assert_eq!(error.name(), ErrorName::ReplicationMismatch);
}

#[test]
fn what_must_not_be_copied_is_refused_by_name_before_rds_is_asked() {
    let mut plain = cluster_snapshot("available");
    plain.encrypted = false;
    assert_eq!(cluster_step(plain, None).unwrap_err().name(), ErrorName::SnapshotUnencrypted);
    let mut theirs = snapshot("available");
    theirs.kind = "awsbackup".into();
    assert_eq!(step(theirs, None, soon()).unwrap_err().name(), ErrorName::SnapshotForeign);
}

#[test]
fn another_accounts_snapshot_is_told_from_one_that_is_gone() {
    let ours = order();
    let text = ours.source.to_string();
    let theirs = SnapshotArn::parse(&text.replace("000000000000", "111111111111")).unwrap();
    let order = CopyOrder { source: theirs, ..ours.clone() };
    let outcome =
        |order: &CopyOrder, source| decide(order, KEY, source, Observed::Missing, soon()).unwrap_err().name();
    assert_eq!(outcome(&order, Observed::Missing), ErrorName::SnapshotForeign);
    // One of ours that happens to have the same name.
    assert_eq!(outcome(&order, Observed::Found(snapshot("available"))), ErrorName::SnapshotForeign);
    assert_eq!(outcome(&ours, Observed::Missing), ErrorName::SnapshotMissing);
}

#[test]
fn a_key_that_aws_manages_is_not_used_for_copies() {
    let mut default = key("us-west-2");
    default.manager = Some("AWS".into());
    let error = check_key(&order(), Observed::Found(default)).unwrap_err();
    assert_eq!(error.name(), ErrorName::KeyNotAccessible);
    assert!(error.remedy().contains("customer managed"), "{error}");
}
