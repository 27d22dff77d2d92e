#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
use super::*;
use crate::fixtures::{self, at, cluster_snapshot, database, snapshot};

fn operation() -> OperationId {
    OperationId::parse("proof-0123456789abcdef").unwrap()
}

fn target() -> TemporaryTarget {
    TemporaryTarget::of(&operation()).unwrap()
}

fn settings() -> RestoreSettings {
    RestoreSettings {
        subnet_group: "restore".into(),
        security_group_ids: vec!["sg-restore".into()],
        instance_class: None,
        timeout: SignedDuration::from_mins(60),
    }
}

fn started() -> Timestamp {
    at("2026-01-02T04:00:00Z")
}

fn instance(status: &str) -> DatabaseFacts {
    let mut facts = database(target().instance_id.as_str(), status);
    facts.tags = labels::mark(Role::Temporary, &operation(), Some("orders"));
    labels::expire(&mut facts.tags, Some(at("2026-01-03T05:00:00Z")));
    facts
}

/// A temporary cluster with the class of its member.
fn cluster(status: &str) -> DatabaseFacts {
    let mut facts = fixtures::cluster(target().instance_id.as_str(), status);
    facts.tags = instance(status).tags;
    facts.tags.insert(labels::INSTANCE_CLASS.into(), "db.r7g.large".into());
    facts
}

fn lease_tags() -> Tags {
    instance("available").tags
}

/// The member of the temporary cluster.
fn member(status: &str) -> DatabaseFacts {
    let mut facts = instance(status);
    facts.cluster = Some(target().instance_id.to_string());
    facts
}

fn alone(instance: Observed<DatabaseFacts>) -> Seen {
    Seen { instance, cluster: Observed::Missing }
}

fn both(instance: Option<DatabaseFacts>, cluster: Option<DatabaseFacts>) -> Seen {
    let seen = |facts: Option<DatabaseFacts>| facts.map_or(Observed::Missing, Observed::Found);
    Seen { instance: seen(instance), cluster: seen(cluster) }
}

fn start_from(snapshot: SnapshotFacts, source: Source<'_>, settings: &RestoreSettings) -> Result<StartStep> {
    let snapshot = (&SnapshotId::parse("orders-1").unwrap(), Observed::Found(snapshot));
    decide_start(&operation(), &target(), settings, snapshot, source, both(None, None), started())
}

fn start(
    snapshot: Observed<SnapshotFacts>,
    source: Option<&DatabaseFacts>,
    existing: Observed<DatabaseFacts>,
) -> Result<StartStep> {
    let id = SnapshotId::parse("orders-1").unwrap();
    let source = Source { database: source, writer: None };
    let existing = alone(existing);
    decide_start(&operation(), &target(), &settings(), (&id, snapshot), source, existing, started())
}

fn check(seen: Observed<DatabaseFacts>, now: Timestamp) -> Result<CheckStep> {
    decide_check(&operation(), &target(), alone(seen), started(), settings().timeout, None, now)
}

#[test]
fn names_of_other_operations_are_refused() {
    check_target(&operation(), &target()).unwrap();
    let other = OperationId::parse("proof-ffffffffffffffff").unwrap();
    assert_eq!(check_target(&other, &target()).unwrap_err().name(), ErrorName::InvalidInput);
    let mut production = target();
    production.instance_id = DatabaseId::parse("orders").unwrap();
    assert_eq!(check_target(&operation(), &production).unwrap_err().name(), ErrorName::InvalidInput);
}

#[test]
fn a_restore_takes_the_installations_network_and_the_sources_settings() {
    let source = database("orders", "available");
    let step = start(Observed::Found(snapshot("available")), Some(&source), Observed::Missing).unwrap();
    let StartStep::Restore { username, lease, request } = step else { panic!("{step:?}") };
    assert_eq!(username, "master");
    assert_eq!(lease[labels::ROLE], "temporary");
    assert_eq!(lease[labels::EXPIRES_AT], "2026-01-03T05:00:00Z");
    assert_eq!(
        *request,
        RestoreRequest {
            snapshot: SnapshotId::parse("orders-1").unwrap(),
            snapshot_kind: DatabaseKind::Instance,
            id: target().instance_id,
            instance_class: Some("db.m7g.large".into()),
            subnet_group: "restore".into(),
            security_group_ids: vec!["sg-restore".into()],
            parameter_group: Some("orders-16".into()),
            option_group: Some("default:postgres-16".into()),
            port: Some(5432),
            tags: lease,
        }
    );
}

#[test]
fn a_source_that_is_gone_or_was_upgraded_gives_no_parameter_group() {
    let mut upgraded = database("orders", "available");
    upgraded.engine_version = "17.2".into();
    for source in [None, Some(&upgraded)] {
        let step = start(Observed::Found(snapshot("available")), source, Observed::Missing).unwrap();
        let StartStep::Restore { request, .. } = step else { panic!("{step:?}") };
        assert_eq!(request.parameter_group, None);
    }
}

#[test]
fn what_is_there_decides_how_to_begin() {
    let mut foreign = instance("available");
    foreign.tags.clear();
    let mut no_user = snapshot("available");
    no_user.master_username = None;
    let found = |status: &str| Observed::Found(snapshot(status));
    for (snapshot, existing, expected) in [
        (found("available"), Observed::Found(instance("creating")), Ok(StartStep::Started)),
        (Observed::Missing, Observed::Found(instance("creating")), Ok(StartStep::Started)),
        (found("available"), Observed::Found(foreign), Err(ErrorName::TargetNotOurs)),
        (Observed::Missing, Observed::Missing, Err(ErrorName::SnapshotMissing)),
        (found("failed"), Observed::Missing, Err(ErrorName::SnapshotFailed)),
        (found("creating"), Observed::Missing, Ok(StartStep::Wait { check_again_in_seconds: 30 })),
        (Observed::Found(no_user), Observed::Missing, Err(ErrorName::CredentialsMissing)),
    ] {
        assert_eq!(start(snapshot, None, existing).map_err(|error| error.name()), expected);
    }
}

#[test]
fn every_status_on_the_way_means_one_thing() {
    let soon = at("2026-01-02T04:10:00Z");
    let last = at("2026-01-02T05:00:00Z");
    let late = at("2026-01-02T05:00:01Z");
    for (status, now, expected) in [
        ("creating", soon, Ok("wait")),
        ("modifying", soon, Ok("wait")),
        ("backing-up", soon, Ok("wait")),
        ("something-new", soon, Ok("wait")),
        ("creating", last, Ok("wait")),
        ("creating", late, Err(ErrorName::RestoreTimeout)),
        ("available", soon, Ok("password")),
        ("available", late, Ok("password")),
        ("incompatible-network", soon, Err(ErrorName::RestoreIncompatible)),
        ("incompatible-restore", soon, Err(ErrorName::RestoreIncompatible)),
        ("incompatible-parameters", soon, Err(ErrorName::RestoreIncompatible)),
        ("incompatible-option-group", soon, Err(ErrorName::RestoreIncompatible)),
        ("restore-error", soon, Err(ErrorName::RestoreFailed)),
        ("failed", soon, Err(ErrorName::RestoreFailed)),
        ("storage-full", soon, Err(ErrorName::RestoreFailed)),
        ("deleting", soon, Err(ErrorName::RestoreFailed)),
        ("insufficient-capacity", soon, Err(ErrorName::InsufficientCapacity)),
        ("inaccessible-encryption-credentials", soon, Err(ErrorName::KeyNotAccessible)),
        ("inaccessible-encryption-credentials-recoverable", soon, Err(ErrorName::KeyNotAccessible)),
    ] {
        let outcome = check(Observed::Found(instance(status)), now).map_err(|error| error.name());
        let outcome = outcome.map(|step| match step {
            CheckStep::Wait { .. } => "wait",
            CheckStep::SetPassword { .. } => "password",
            CheckStep::Ready { .. } => "ready",
            CheckStep::CreateMember(_) => "member",
        });
        assert_eq!(outcome, expected, "{status} at {now}");
    }
}

#[test]
fn the_password_is_waited_for_until_it_is_applied() {
    let now = at("2026-01-02T04:20:00Z");
    let CheckStep::SetPassword { remember, .. } = check(Observed::Found(instance("available")), now).unwrap()
    else {
        panic!()
    };
    let with = |status: &str, change: fn(&mut DatabaseFacts)| {
        let mut facts = instance(status);
        facts.tags.extend(remember.clone());
        change(&mut facts);
        check(Observed::Found(facts), at("2026-01-02T04:21:00Z")).unwrap()
    };
    assert!(matches!(with("resetting-master-credentials", |_| ()), CheckStep::Wait { .. }));
    assert!(matches!(with("available", |facts| facts.password_pending = true), CheckStep::Wait { .. }));
    assert!(matches!(with("available", |facts| facts.endpoint = None), CheckStep::Wait { .. }));
    let CheckStep::Ready { endpoint, time_to_available_seconds, .. } = with("available", |_| ()) else {
        panic!()
    };
    assert_eq!((endpoint.port, time_to_available_seconds), (5432, 1200));
}

#[test]
fn an_instance_without_our_whole_lease_is_never_touched() {
    let changes: [fn(&mut DatabaseFacts); 5] = [
        |facts| facts.tags.clear(),
        |facts| drop(facts.tags.remove(labels::EXPIRES_AT)),
        |facts| drop(facts.tags.insert(labels::ROLE.into(), "backup".into())),
        |facts| drop(facts.tags.insert(labels::OPERATION_ID.into(), "proof-ffffffffffffffff".into())),
        |facts| facts.id = DatabaseId::parse("orders").unwrap(),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut facts = instance("available");
        change(&mut facts);
        let dispose =
            decide_disposal(&operation(), &target(), alone(Observed::Found(facts.clone())), started());
        assert_eq!(dispose.unwrap_err().name(), ErrorName::TargetNotOurs, "{number}");
        let check = check(Observed::Found(facts), started());
        assert_eq!(check.unwrap_err().name(), ErrorName::TargetNotOurs, "{number}");
    }
}

#[test]
fn disposal_goes_from_instance_to_secret() {
    let lease_over = at("2026-01-04T05:00:01Z");
    for (status, now, expected) in [
        ("available", started(), Ok(DisposeStep::DeleteInstance { member: false })),
        ("creating", started(), Ok(DisposeStep::DeleteInstance { member: false })),
        ("incompatible-network", started(), Ok(DisposeStep::DeleteInstance { member: false })),
        ("deleting", started(), Ok(DisposeStep::Wait)),
        ("deleting", lease_over, Err(ErrorName::DisposalFailed)),
        ("available", lease_over, Ok(DisposeStep::DeleteInstance { member: false })),
    ] {
        let seen = alone(Observed::Found(instance(status)));
        let step = decide_disposal(&operation(), &target(), seen, now).map_err(|error| error.name());
        assert_eq!(step, expected, "{status} at {now}");
    }
    let gone = decide_disposal(&operation(), &target(), both(None, None), started()).unwrap();
    assert_eq!(gone, DisposeStep::DeleteSecret);
    let unreachable = Observed::Unreachable(DrError::new(ErrorName::AwsUnreachable, "looking"));
    let unknown = decide_disposal(&operation(), &target(), alone(unreachable), started());
    assert_eq!(unknown.unwrap_err().name(), ErrorName::AwsUnreachable, "not knowing is not being gone");
}

#[test]
fn a_fresh_instance_may_be_unseen_for_a_while() {
    let wait = check(Observed::Missing, started() + SETTLING).unwrap();
    assert!(matches!(wait, CheckStep::Wait { .. }));
    let gone = check(Observed::Missing, started() + SETTLING + SignedDuration::from_secs(1)).unwrap_err();
    assert_eq!(gone.name(), ErrorName::RestoreFailed);
}

#[test]
fn a_taken_name_is_adopted_only_with_our_lease() {
    let id = target().instance_id;
    adopt(&operation(), &id, Observed::Found(instance("creating"))).unwrap();
    let foreign = Observed::Found(database(id.as_str(), "available"));
    assert_eq!(adopt(&operation(), &id, foreign).unwrap_err().name(), ErrorName::TargetNotOurs);
    assert_eq!(adopt(&operation(), &id, Observed::Missing).unwrap_err().name(), ErrorName::StateConflict);
}

#[test]
fn a_snapshot_of_aurora_becomes_a_cluster_with_its_members_class_written_on_it() {
    let source = fixtures::cluster("shop", "available");
    let mut writer = database("shop-1", "available");
    writer.instance_class = "db.r7g.xlarge".into();
    let mut serverless = writer.clone();
    serverless.instance_class = "db.serverless".into();
    let mut scaled = source.clone();
    scaled.scaling = Some(Scaling { min_half_units: 4, max_half_units: 64 });
    let mut upgraded = source.clone();
    upgraded.engine_version = "17.2".into();
    let asked = RestoreSettings { instance_class: Some("db.t4g.medium".into()), ..settings() };
    let cases = [
        (Source { database: Some(&source), writer: Some(&writer) }, settings(), "db.r7g.xlarge", None),
        (Source { database: Some(&source), writer: Some(&writer) }, asked, "db.t4g.medium", None),
        (
            Source { database: Some(&scaled), writer: Some(&serverless) },
            settings(),
            "db.serverless",
            scaled.scaling,
        ),
        (
            Source { database: Some(&source), writer: Some(&serverless) },
            settings(),
            "db.serverless",
            Some(MODEST),
        ),
        (Source { database: Some(&upgraded), writer: None }, settings(), "db.serverless", Some(MODEST)),
        (Source::default(), settings(), "db.serverless", Some(MODEST)),
    ];
    for (number, (source, settings, class, scaling)) in cases.into_iter().enumerate() {
        let step = start_from(cluster_snapshot("available"), source, &settings).unwrap();
        let StartStep::RestoreCluster { username, lease, request } = step else { panic!("{step:?}") };
        assert_eq!((username.as_str(), request.scaling), ("master", scaling), "case {number}");
        assert_eq!(request.tags[labels::INSTANCE_CLASS], class, "case {number}");
        assert!(!lease.contains_key(labels::INSTANCE_CLASS), "the secret's lease says nothing of it");
        assert_eq!(request.id, target().instance_id);
        let fits = source.database.is_some_and(|source| source.engine_version == "16.4");
        assert_eq!(request.parameter_group.is_some(), fits, "case {number}");
    }
}

#[test]
fn a_snapshot_of_a_multi_az_cluster_becomes_one_instance() {
    let mut shot = cluster_snapshot("available");
    shot.engine = "postgres".into();
    let mut source = fixtures::cluster("shop", "available");
    source.engine = "postgres".into();
    source.instance_class = "db.m6gd.large".into();
    let step = start_from(shot, Source { database: Some(&source), writer: None }, &settings()).unwrap();
    let StartStep::Restore { request, .. } = step else { panic!("{step:?}") };
    assert_eq!(request.snapshot_kind, DatabaseKind::Cluster);
    assert_eq!(request.instance_class.as_deref(), Some("db.m6gd.large"));
    assert_eq!(request.parameter_group, None, "a cluster parameter group fits no instance");
}

#[test]
fn a_snapshot_of_somebody_else_is_not_restored() {
    let mut shared = snapshot("available");
    shared.kind = "shared".into();
    let error = start_from(shared, Source::default(), &settings()).unwrap_err();
    assert_eq!(error.name(), ErrorName::SnapshotForeign);
}

#[test]
fn a_cluster_then_its_member_then_the_password_then_ready() {
    let soon = at("2026-01-02T04:10:00Z");
    let late = at("2026-01-02T05:00:01Z");
    let marked = |mut facts: DatabaseFacts| {
        facts.tags.insert(labels::PASSWORD_SET.into(), "2026-01-02T04:08:00Z".into());
        facts
    };
    let pending = |mut facts: DatabaseFacts| {
        facts.password_pending = true;
        facts
    };
    let untagged = |mut facts: DatabaseFacts| {
        facts.tags.remove(labels::INSTANCE_CLASS);
        facts
    };
    let foreign = || fixtures::cluster(target().instance_id.as_str(), "available");
    for (number, (instance, cluster, now, expected)) in vec![
        (None, Some(cluster("creating")), soon, Ok("wait: cluster creating")),
        (None, Some(cluster("creating")), late, Err(ErrorName::RestoreTimeout)),
        (None, Some(cluster("incompatible-network")), soon, Err(ErrorName::RestoreIncompatible)),
        (None, Some(cluster("available")), soon, Ok("member of class db.r7g.large")),
        (None, Some(cluster("available")), late, Err(ErrorName::RestoreTimeout)),
        (None, Some(untagged(cluster("available"))), soon, Err(ErrorName::RestoreFailed)),
        (None, Some(foreign()), soon, Err(ErrorName::TargetNotOurs)),
        (Some(member("creating")), Some(cluster("available")), soon, Ok("wait: creating")),
        (Some(member("creating")), None, soon, Ok("wait: cluster unknown")),
        (Some(member("failed")), Some(cluster("available")), soon, Err(ErrorName::RestoreFailed)),
        (Some(member("available")), Some(cluster("available")), soon, Ok("password of cluster")),
        (
            Some(member("available")),
            Some(marked(cluster("resetting-master-credentials"))),
            soon,
            Ok("wait: cluster resetting-master-credentials"),
        ),
        (
            Some(member("available")),
            Some(pending(marked(cluster("available")))),
            soon,
            Ok("wait: cluster available"),
        ),
        (Some(member("available")), Some(marked(cluster("available"))), soon, Ok("ready after 480 s")),
    ]
    .into_iter()
    .enumerate()
    {
        let seen = both(instance, cluster);
        let step = decide_check(&operation(), &target(), seen, started(), settings().timeout, None, now);
        let step = step.map_err(|error| error.name()).map(|step| match step {
            CheckStep::Wait { status, .. } => format!("wait: {status}"),
            CheckStep::CreateMember(request) => {
                assert_eq!(request.tags, lease_tags(), "the member has the lease");
                format!("member of class {}", request.instance_class)
            }
            CheckStep::SetPassword { kind, .. } => format!("password of {kind}"),
            CheckStep::Ready { time_to_available_seconds, .. } => {
                format!("ready after {time_to_available_seconds} s")
            }
        });
        assert_eq!(step, expected.map(str::to_owned), "case {number}");
    }
}

#[test]
fn disposal_goes_from_member_to_cluster_to_secret() {
    let lease_over = at("2026-01-04T05:00:01Z");
    let foreign = || fixtures::cluster(target().instance_id.as_str(), "available");
    for (number, (instance, cluster, now, expected)) in vec![
        (
            Some(member("available")),
            Some(cluster("available")),
            started(),
            Ok(DisposeStep::DeleteInstance { member: true }),
        ),
        (Some(member("deleting")), Some(cluster("available")), started(), Ok(DisposeStep::Wait)),
        (None, Some(cluster("available")), started(), Ok(DisposeStep::DeleteCluster)),
        (None, Some(cluster("incompatible-network")), started(), Ok(DisposeStep::DeleteCluster)),
        (None, Some(cluster("deleting")), started(), Ok(DisposeStep::Wait)),
        (None, Some(cluster("deleting")), lease_over, Err(ErrorName::DisposalFailed)),
        (None, Some(foreign()), started(), Err(ErrorName::TargetNotOurs)),
        (None, None, started(), Ok(DisposeStep::DeleteSecret)),
    ]
    .into_iter()
    .enumerate()
    {
        let step = decide_disposal(&operation(), &target(), both(instance, cluster), now);
        assert_eq!(step.map_err(|error| error.name()), expected, "case {number}");
    }
    let lost = Observed::Unreachable(DrError::new(ErrorName::AwsUnreachable, "looking"));
    let seen = Seen { instance: Observed::Missing, cluster: lost };
    let unknown = decide_disposal(&operation(), &target(), seen, started());
    assert_eq!(
        unknown.unwrap_err().name(),
        ErrorName::AwsUnreachable,
        "the secret stays while it is not known"
    );
}

#[test]
fn an_instance_is_waited_for_by_what_its_restores_took_and_a_cluster_is_not() {
    let earlier = crate::polling::Earlier {
        count: 1,
        least_seconds: 900,
        expected_seconds: 900,
        most_seconds: 900,
        of: "1 earlier restore of orders".into(),
    };
    let now = started() + SignedDuration::from_secs(20);
    let wait = |seen| {
        let step =
            decide_check(&operation(), &target(), seen, started(), settings().timeout, Some(&earlier), now);
        match step.unwrap() {
            CheckStep::Wait { pause, step, .. } => (pause.seconds, pause.why.is_some(), step.is_some()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(wait(alone(Observed::Found(instance("creating")))), (59, true, true));
    let cluster = DatabaseFacts {
        kind: DatabaseKind::Cluster,
        tags: instance("creating").tags,
        ..crate::fixtures::cluster(target().instance_id.as_str(), "creating")
    };
    assert_eq!(wait(both(None, Some(cluster))), (5, false, false));
}
