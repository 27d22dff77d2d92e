#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
use super::super::tests::{blind, expected, home, now, west};
use super::super::{Expected, Seen, assess};
use super::*;
use crate::health::Quota;

const LEASE: SignedDuration = SignedDuration::from_mins(6);

fn minutes(minutes: i64) -> SignedDuration {
    SignedDuration::from_mins(minutes)
}

/// All is well, and stays so while time passes.
fn healthy() -> Seen {
    let mut seen = super::super::tests::healthy();
    seen.regions.get_mut(&home()).unwrap().instances.as_mut().unwrap()[0].latest_restorable_time = None;
    seen
}

/// The table between checks, and what was published.
#[derive(Default)]
struct Table {
    item: Option<Health>,
    published: Vec<Message>,
}

impl Table {
    /// A check that does all its steps.
    fn check(&mut self, seen: &Seen, at: Timestamp) -> Recorded {
        let recorded = self.record(seen, &Scope::All, at, at);
        self.publish(&recorded, at);
        recorded
    }

    /// The first step of a check: its decision is written.
    fn record(&mut self, seen: &Seen, scope: &Scope, looked_at: Timestamp, at: Timestamp) -> Recorded {
        let assessment = assess(&Expected { scope: scope.clone(), ..expected() }, seen, looked_at);
        let recorded = record(self.item.as_ref(), &assessment, scope, looked_at, at, LEASE);
        self.write(recorded.change.as_ref());
        recorded
    }

    fn publish(&mut self, recorded: &Recorded, at: Timestamp) {
        let ids: Vec<String> = recorded.deliver.iter().map(|message| message.id.clone()).collect();
        self.published.extend(recorded.deliver.iter().cloned());
        if let Some(item) = &self.item {
            let change = delivered(item, &ids, &[], at);
            self.write(change.as_ref());
        }
    }

    fn write(&mut self, change: Option<&Change>) {
        let Some(change) = change else { return };
        let [Write::Put(Item::Health(next), expect)] = &change.writes[..] else { panic!("{change:?}") };
        let before = self.item.as_ref().map(|item| item.version);
        assert_eq!(*expect, before.map_or(Expect::Absent, Expect::Version), "the version that was read");
        assert_eq!(next.version, before.unwrap_or_default() + 1);
        self.item = Some(next.as_ref().clone());
    }

    fn told(&mut self) -> Vec<(Severity, String)> {
        self.published.drain(..).map(|message| (message.severity, message.text)).collect()
    }
}

fn full(used: i64) -> Seen {
    let mut seen = healthy();
    let quota = Quota { name: "ManualSnapshots".into(), used, max: 100 };
    seen.regions.get_mut(&west()).unwrap().quotas = Ok(vec![quota]);
    seen
}

#[test]
fn a_change_of_state_is_told_once_and_its_end_once() {
    let mut table = Table::default();
    for (minute, used, told) in [
        (0, 10, None),
        (15, 80, Some((Severity::Warning, "WARNING 80 of 100"))),
        (30, 80, None),
        // A little worse within the same severity is no change.
        (45, 90, None),
        (60, 95, Some((Severity::Critical, "CRITICAL 95 of 100"))),
        (75, 99, None),
        (90, 80, Some((Severity::Info, "WARNING 80 of 100"))),
        (105, 10, Some((Severity::Info, "OVER quotas/us-west-2/ManualSnapshots/quota-nearly-used"))),
        (120, 10, None),
        (135, 95, Some((Severity::Critical, "CRITICAL 95 of 100"))),
    ] {
        table.check(&full(used), now() + minutes(minute));
        let messages = table.told();
        assert_eq!(messages.len(), usize::from(told.is_some()), "minute {minute}: {messages:?}");
        if let (Some((severity, text)), Some((severity_told, text_told))) = (told, messages.first()) {
            assert_eq!(*severity_told, severity, "minute {minute}");
            assert!(text_told.starts_with(text), "minute {minute}: {text_told}");
        }
    }
}

#[test]
fn a_whole_check_is_remembered_even_when_nothing_changed() {
    let mut table = Table::default();
    table.check(&full(95), now());
    table.check(&full(95), now() + minutes(15));
    let item = table.item.unwrap();
    assert_eq!((item.status, item.checked_at), (State::Failed, Some(now() + minutes(15))));
    assert_eq!(item.waiting, []);
    let [open] = &item.open.values().collect::<Vec<_>>()[..] else { panic!("one open") };
    assert_eq!((open.since, open.seen_at), (now(), now() + minutes(15)));
}

#[test]
fn information_is_told_to_nobody() {
    let mut table = Table::default();
    let mut seen = healthy();
    seen.regions.get_mut(&home()).unwrap().instances.as_mut().unwrap()[0].status = "backing-up".into();
    assert_eq!(table.check(&seen, now()).alterations, []);
    table.check(&healthy(), now() + minutes(15));
    assert_eq!(table.told(), []);
}

#[test]
fn all_changes_of_a_check_are_one_message_with_the_worst_first() {
    let mut table = Table::default();
    table.check(&full(95), now());
    table.told();
    let mut seen = healthy();
    let instance = &mut seen.regions.get_mut(&home()).unwrap().instances.as_mut().unwrap()[0];
    (instance.status, instance.publicly_accessible) = ("stopped".into(), true);
    table.check(&seen, now() + minutes(15));
    let [(Severity::Critical, text)] = &table.told()[..] else { panic!("one message") };
    let words: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(words, ["CRITICAL", "WARNING", "OVER", "Now"]);
}

#[test]
fn what_could_not_be_looked_at_is_not_over() {
    let mut table = Table::default();
    table.check(&full(95), now());
    table.told();
    let mut seen = healthy();
    seen.regions.get_mut(&west()).unwrap().quotas = Err(blind());
    table.check(&seen, now() + minutes(15));
    let [(Severity::Warning, text)] = &table.told()[..] else { panic!("one message") };
    assert!(text.contains("could not be looked at") && !text.contains("OVER"), "{text}");
    table.check(&full(95), now() + minutes(30));
    let [(Severity::Info, text)] = &table.told()[..] else { panic!("one message") };
    assert!(text.contains("OVER") && text.contains("unreachable") && !text.contains("CRITICAL "), "{text}");
}

#[test]
fn of_two_checks_at_once_one_loses_the_race_and_then_has_nothing_to_tell() {
    let mut table = Table::default();
    let seen = full(95);
    let assessment = assess(&expected(), &seen, now());
    // Both read the empty table; the second one's write finds another version.
    let first = record(None, &assessment, &Scope::All, now(), now(), LEASE);
    let second = record(None, &assessment, &Scope::All, now(), now(), LEASE);
    assert_eq!((first.deliver.len(), second.deliver.len()), (1, 1));
    table.write(first.change.as_ref());
    // Decided again on what the first one wrote, which is publishing.
    let again = table.record(&seen, &Scope::All, now(), now() + minutes(1));
    assert_eq!((again.alterations.len(), again.deliver.len()), (0, 0));
    table.publish(&first, now() + minutes(1));
    assert_eq!(table.told().len(), 1);
}

#[test]
fn an_older_look_changes_nothing_about_a_newer_one() {
    let mut table = Table::default();
    table.check(&full(95), now() + minutes(1));
    table.told();
    let late = table.record(&healthy(), &Scope::All, now(), now() + minutes(2));
    assert!(late.superseded && late.change.is_none() && late.deliver.is_empty());
    // Of a check of one part, too, only what it saw later counts.
    let late = table.record(&healthy(), &Scope::Region(west()), now(), now() + minutes(2));
    assert!(late.superseded);
    let later = table.record(&healthy(), &Scope::Region(west()), now() + minutes(3), now() + minutes(3));
    assert_eq!(later.alterations.len(), 1);
}

#[test]
fn a_message_of_a_check_that_died_is_sent_by_the_next_one_after_the_lease() {
    let mut table = Table::default();
    let died = table.record(&full(95), &Scope::All, now(), now());
    assert_eq!(died.deliver.len(), 1);
    let during = table.record(&full(95), &Scope::All, now() + minutes(5), now() + minutes(5));
    assert_eq!(during.deliver, [], "it may be on its way");
    let after = table.record(&full(95), &Scope::All, now() + LEASE, now() + LEASE);
    assert_eq!(after.deliver.len(), 1);
    assert_eq!((&after.deliver[0].id, &after.deliver[0].text), (&died.deliver[0].id, &died.deliver[0].text));
    // Whoever takes it over holds it: a third one waits.
    let third = table.record(&full(95), &Scope::All, now() + LEASE, now() + LEASE + minutes(1));
    assert_eq!(third.deliver, []);
    table.publish(&after, now() + LEASE);
    assert_eq!(table.item.unwrap().waiting, []);
}

#[test]
fn a_message_that_the_topic_refused_is_free_at_once_and_sent_even_if_all_is_well_again() {
    let mut table = Table::default();
    let refused = table.record(&full(95), &Scope::All, now(), now());
    let ids = [refused.deliver[0].id.clone()];
    let change = delivered(table.item.as_ref().unwrap(), &[], &ids, now());
    table.write(change.as_ref());
    table.check(&healthy(), now() + minutes(1));
    let told = table.told();
    assert_eq!(
        told.iter().map(|(severity, _)| *severity).collect::<Vec<_>>(),
        [Severity::Critical, Severity::Info]
    );
}

#[test]
fn taking_out_what_is_gone_writes_nothing() {
    let mut table = Table::default();
    table.check(&full(95), now());
    assert_eq!(delivered(table.item.as_ref().unwrap(), &["v1".to_owned()], &[], now()), None);
}

#[test]
fn an_idle_check_of_one_part_writes_nothing() {
    let mut table = Table::default();
    table.check(&healthy(), now());
    let idle = table.record(&healthy(), &Scope::Region(west()), now() + minutes(1), now() + minutes(1));
    assert_eq!((idle.change, idle.superseded), (None, false));
}

#[test]
fn what_is_remembered_fits_into_an_item_of_the_table() {
    let mut table = Table::default();
    let mut seen = healthy();
    let template = seen.regions[&home()].instances.as_ref().unwrap()[0].clone();
    let many = (0..5_000).map(|n| {
        let id = format!("a-database-with-quite-a-long-name-of-sixty-characters-{n:09}");
        crate::health::InstanceSeen {
            id,
            status: "failed".into(),
            publicly_accessible: true,
            ..template.clone()
        }
    });
    seen.regions.get_mut(&home()).unwrap().instances = Ok(many.collect());
    for round in 0..20 {
        // The topic is away, and the state goes up and down.
        let seen = if round % 2 == 0 { &seen } else { &full(95) };
        let at = now() + minutes(15 * round);
        table.record(seen, &Scope::All, at, at);
    }
    table.record(&seen, &Scope::All, now() + minutes(400), now() + minutes(400));
    let item = table.item.unwrap();
    assert_eq!((item.open.len(), item.waiting.len()), (MOST_OPEN, MOST_WAITING));
    assert!(item.open.values().all(|open| open.severity == Severity::Critical), "the worst are kept");
    let bytes = serde_json::to_vec(&item).unwrap().len();
    // DynamoDB counts names and values, much as JSON does; its limit is 400 KB.
    assert!(bytes < 390_000, "{bytes}");
    for message in &item.waiting {
        assert!(message.subject.len() <= 100 && message.subject.is_ascii(), "{}", message.subject);
        assert!(message.text.len() < 10_000, "{}", message.text.len());
    }
}
