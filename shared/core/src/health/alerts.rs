//! When people are told: once for each change of state, whoever looks and however often.
//!
//! One item of the state table holds what is open and what is on its way to a topic. A check writes what changed and
//! the message about it in one conditional write, publishes, and takes the message out again. A message that is still
//! there when its lease is over was not delivered (its check died) and is sent by the next check; so a message is sent
//! at least once, and twice only if a check dies between the two. Nothing in here reads a clock or talks to the table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Assessment, Component, Finding, Scope, Severity, State};
use crate::changes::{Change, Expect, Item, Write};
use crate::ids::Region;

/// The most open findings that are remembered, the worst first: an item of the table has 400 KB at most.
pub const MOST_OPEN: usize = 1_000;
/// The most messages that wait for delivery; when a topic is away for long, the oldest ones go.
pub const MOST_WAITING: usize = 10;
/// The most changes that a message spells out.
const MOST_LINES: usize = 20;
/// The longest line of a message, in characters.
const LONGEST_LINE: usize = 400;

/// What is remembered between checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// The table's key, [`Health::KEY`].
    pub operation_id: String,
    /// `health`, so that it can be found by the index.
    #[serde(rename = "type")]
    pub kind: String,
    /// The state of everything, as the last whole check saw it; part of an index.
    pub status: State,
    /// When everything was looked at last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked_at: Option<Timestamp>,
    /// Open findings by [`Finding::key`]; only warnings and critical ones.
    #[serde(default)]
    pub open: BTreeMap<String, Open>,
    /// Messages on their way, oldest first.
    #[serde(default)]
    pub waiting: Vec<Message>,
    /// Counts the writes.
    pub version: u64,
}

impl Health {
    /// The table's key.
    pub const KEY: &'static str = "health#alerts";

    fn new() -> Self {
        Self {
            operation_id: Self::KEY.to_owned(),
            kind: "health".to_owned(),
            status: State::Healthy,
            checked_at: None,
            open: BTreeMap::new(),
            waiting: Vec::new(),
            version: 0,
        }
    }
}

/// An open finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Open {
    /// How bad it is.
    pub severity: Severity,
    /// Since when.
    pub since: Timestamp,
    /// When it was seen last: an older look changes nothing about it.
    pub seen_at: Timestamp,
}

/// A message to a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// Tells it from the others.
    pub id: String,
    /// Which topic: critical, warning or info.
    pub severity: Severity,
    /// At most 100 characters of ASCII, as SNS wants it.
    pub subject: String,
    /// The text.
    pub text: String,
    /// Until when the check that wrote it may be publishing it.
    pub lease_until: Timestamp,
}

/// How a finding's state changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It is new, or worse than before.
    Raised,
    /// It is less bad than before.
    Eased,
    /// It is over.
    Recovered,
}

/// One change of state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Alteration {
    /// How it changed.
    pub kind: Kind,
    /// What it is now; for what is over, what it was.
    pub severity: Severity,
    /// [`Finding::key`].
    pub finding: String,
    /// For people.
    #[serde(skip)]
    pub line: String,
}

/// What a check means for what is remembered.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// What changed; nothing when a newer check came first.
    pub alterations: Vec<Alteration>,
    /// Whether a newer check of everything was written before.
    pub superseded: bool,
    /// The write. Absent when there is nothing to write.
    pub change: Option<Change>,
    /// To publish after the write, and then to [`delivered`].
    pub deliver: Vec<Message>,
}

/// Decides what a check changes and which messages it must publish: its own, and those of checks that died.
///
/// `looked_at` is when the world was looked at, `now` when this is decided; `lease` must be longer than a check can
/// live.
pub fn record(
    existing: Option<&Health>,
    assessment: &Assessment,
    scope: &Scope,
    looked_at: Timestamp,
    now: Timestamp,
    lease: SignedDuration,
) -> Recorded {
    let mut next = existing.cloned().unwrap_or_else(Health::new);
    let superseded = existing.and_then(|health| health.checked_at).is_some_and(|at| at > looked_at);
    let mut alterations = Vec::new();
    if !superseded {
        alterations = alter(&mut next.open, assessment, looked_at);
        if *scope == Scope::All {
            next.status = assessment.state;
            next.checked_at = Some(looked_at);
        }
    }
    // Whoever wrote these is dead by now: they are ours.
    let mut deliver = Vec::new();
    for message in next.waiting.iter_mut().filter(|message| message.lease_until <= now) {
        message.lease_until = now + lease;
        deliver.push(message.clone());
    }
    next.version += 1;
    if let Some((severity, subject, text)) = compose(&alterations, assessment) {
        let id = format!("v{}", next.version);
        let message = Message { id, severity, subject, text, lease_until: now + lease };
        next.waiting.push(message.clone());
        deliver.push(message);
    }
    if next.waiting.len() > MOST_WAITING {
        next.waiting.drain(..next.waiting.len() - MOST_WAITING);
        deliver.retain(|message| next.waiting.iter().any(|waiting| waiting.id == message.id));
    }
    // A look at a part that found nothing new is not worth a write; one at everything says when it was made.
    let idle = alterations.is_empty() && deliver.is_empty();
    let writes_nothing = superseded && deliver.is_empty() || idle && *scope != Scope::All;
    let change = (!writes_nothing).then(|| put(next, existing));
    Recorded { alterations, superseded, change, deliver }
}

/// Takes messages that were published out; those that were not are free for the next check at once.
///
/// `None` when nothing is to be written: they are gone already.
pub fn delivered(
    existing: &Health,
    published: &[String],
    failed: &[String],
    now: Timestamp,
) -> Option<Change> {
    let mut next = existing.clone();
    next.waiting.retain(|message| !published.contains(&message.id));
    for message in next.waiting.iter_mut().filter(|message| failed.contains(&message.id)) {
        message.lease_until = now;
    }
    if next == *existing {
        return None;
    }
    next.version += 1;
    Some(put(next, Some(existing)))
}

fn put(next: Health, existing: Option<&Health>) -> Change {
    let expect = existing.map_or(Expect::Absent, |health| Expect::Version(health.version));
    let writes = vec![Write::Put(Item::Health(Box::new(next)), expect)];
    Change { writes, answer: serde_json::Value::Null, ended: None }
}

fn alter(
    open: &mut BTreeMap<String, Open>,
    assessment: &Assessment,
    looked_at: Timestamp,
) -> Vec<Alteration> {
    let mut alterations = Vec::new();
    let mut found: BTreeMap<String, &Finding> = BTreeMap::new();
    for finding in assessment.findings.iter().filter(|finding| finding.severity >= Severity::Warning) {
        // The worst come first, so of two with one key the worse one counts.
        found.entry(finding.key()).or_insert(finding);
    }
    for (key, finding) in &found {
        let alteration = |kind| Alteration {
            kind,
            severity: finding.severity,
            finding: key.clone(),
            line: line(&finding.severity.to_string().to_uppercase(), &finding.message, finding.action),
        };
        let is_full = open.len() >= MOST_OPEN;
        match open.get_mut(key) {
            Some(known) if known.seen_at > looked_at => {}
            Some(known) => {
                known.seen_at = looked_at;
                let before = std::mem::replace(&mut known.severity, finding.severity);
                if before < finding.severity {
                    alterations.push(alteration(Kind::Raised));
                } else if before > finding.severity {
                    alterations.push(alteration(Kind::Eased));
                }
            }
            None if is_full => {}
            None => {
                let entry = Open { severity: finding.severity, since: looked_at, seen_at: looked_at };
                open.insert(key.clone(), entry);
                alterations.push(alteration(Kind::Raised));
            }
        }
    }
    // What is no longer found is over only where somebody looked.
    open.retain(|key, known| {
        let is_over =
            !found.contains_key(key) && known.seen_at <= looked_at && was_looked_at(key, assessment);
        if is_over {
            let what = format!("{key} (since {})", known.since);
            alterations.push(Alteration {
                kind: Kind::Recovered,
                severity: known.severity,
                finding: key.clone(),
                line: line("OVER", &what, ""),
            });
        }
        !is_over
    });
    alterations.sort_by(|a, b| {
        (a.kind != Kind::Raised, b.severity, &a.finding).cmp(&(
            b.kind != Kind::Raised,
            a.severity,
            &b.finding,
        ))
    });
    alterations
}

/// Whether what the key of a finding names was looked at. A key that no finding could have is dropped in the same way.
fn was_looked_at(key: &str, assessment: &Assessment) -> bool {
    let parts = key.split_once('/').and_then(|(component, rest)| {
        let component = Component::ALL.iter().copied().find(|one| one.as_str() == component)?;
        let (region, rest) = rest.split_once('/')?;
        // A subject may have slashes, a code has none.
        Some((component, Region::parse(region).ok()?, rest.rsplit_once('/')?.0))
    });
    parts.is_none_or(|(component, region, subject)| assessment.covers(component, &region, subject))
}

fn line(word: &str, what: &str, action: &str) -> String {
    let text = if action.is_empty() { format!("{word} {what}") } else { format!("{word} {what}. {action}") };
    text.chars().take(LONGEST_LINE).collect()
}

/// One message about all changes; its severity is that of the worst thing that was raised, else `info`.
fn compose(alterations: &[Alteration], assessment: &Assessment) -> Option<(Severity, String, String)> {
    let of = |kind| alterations.iter().filter(move |alteration: &&Alteration| alteration.kind == kind);
    let raised = of(Kind::Raised).count();
    let over = alterations.len() - raised;
    if alterations.is_empty() {
        return None;
    }
    let severity = of(Kind::Raised).map(|alteration| alteration.severity).max().unwrap_or(Severity::Info);
    let counts = [(raised, "new or worse"), (over, "over or better")]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect::<Vec<_>>()
        .join(", ");
    let subject = format!("Lifeboat health {severity}: {counts}; now {}", assessment.state.as_str());
    let mut text = String::new();
    for alteration in alterations.iter().take(MOST_LINES) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", alteration.line);
    }
    if alterations.len() > MOST_LINES {
        let _ = writeln!(text, "and {} more.", alterations.len() - MOST_LINES);
    }
    let _ = writeln!(
        text,
        "Now {}: {} critical, {} warnings. The runbook \"A health finding\" says what to do.",
        assessment.state.as_str(),
        assessment.count(Severity::Critical),
        assessment.count(Severity::Warning)
    );
    Some((severity, subject, text))
}

#[cfg(test)]
#[path = "alerts_tests.rs"]
mod tests;
