//! A restore beside an earlier, proven restore of the same snapshot, or of the snapshot that this one is a copy of.
//!
//! Nobody writes between the two, so they hold the same rows, to the last one, and a difference is damage: no counter
//! of the source explains it. What is equal is what it was then, and keeps the verdict that it was given then, by a
//! proof that could ask the source.
//!
//! What it cannot see: the content of rows that are newer than the frame, which are counted and not digested; and
//! whatever writes to a restore by itself (a job scheduler in the database), which looks like damage.

use std::collections::{BTreeMap, BTreeSet};

use super::evidence::in_order;
use super::table::{blank, digest, ranges};
use super::whole::finding;
use crate::error::Result;
use crate::proof::digest::Digest;
use crate::proof::examination::{CatalogueFindings, Examination, ExaminationPlan};
use crate::proof::frame::{
    Persistence, SequenceFacts, Slice, SliceOutcome, SliceResult, TableFacts, TableName, UnitResult,
    Visibility,
};
use crate::proof::judgement::{
    Amount, BesideEarlier, EarlierProof, Finding, FindingKind, Reason, Severity, TableJudgement,
    TableVerdict, Verdict,
};

/// What is known of an earlier proof.
#[derive(Debug, Clone, Copy, Default)]
pub enum Earlier<'a> {
    /// There was none: this is the first one.
    #[default]
    None,
    /// There was one, and its records are not there any more.
    Missing {
        /// Its operation, where that is known.
        operation_id: Option<&'a str>,
    },
    /// What it found.
    Restored(&'a EarlierRestore),
}

/// The records of an earlier proof, as far as they are compared.
#[derive(Debug, Clone, PartialEq)]
pub struct EarlierRestore {
    /// What it found. Only a proven one is compared with.
    pub verdict: Verdict,
    /// What it found of each table.
    pub tables: Vec<TableJudgement>,
    /// What was planned.
    pub plan: ExaminationPlan,
    /// One result a unit.
    pub units: Vec<UnitResult>,
    /// What the catalogue said.
    pub catalogue: CatalogueFindings,
}

/// What came of comparing.
#[derive(Debug, Default)]
pub(super) struct Comparison<'a> {
    operation_id: Option<&'a str>,
    /// Why nothing could be compared.
    refused: Option<String>,
    /// By the table's names, with the slices to blame.
    tables: BTreeMap<&'a TableName, (BesideEarlier, Vec<Slice>)>,
    /// What the earlier proof found of each table.
    judged: BTreeMap<&'a TableName, Vec<&'a TableJudgement>>,
    /// Tables that are not here any more.
    missing: Vec<&'a TableFacts>,
    findings: Vec<Finding>,
}

/// Compares. Nothing is answered where there is nothing to compare with.
///
/// # Errors
/// [`ErrorName::MetadataDamaged`](crate::error::ErrorName::MetadataDamaged) where a unit of this examination has no
/// result. Records of the earlier one with holes are not comparable.
pub(super) fn compare<'a>(
    earlier: Earlier<'a>,
    examination: &'a Examination,
) -> Result<Option<Comparison<'a>>> {
    let then = match earlier {
        Earlier::None => return Ok(None),
        Earlier::Missing { operation_id } => {
            let refused = Some("its records are not there any more".to_owned());
            return Ok(Some(Comparison { operation_id, refused, ..Comparison::default() }));
        }
        Earlier::Restored(then) => then,
    };
    let operation_id = Some(then.plan.operation_id.as_str());
    let here = cuts(&examination.plan, &examination.units)?;
    let refused = match (not_comparable(then, &examination.plan), cuts(&then.plan, &then.units)) {
        (Some(reason), _) => reason,
        (None, Err(_)) => "its records have holes".to_owned(),
        (None, Ok(there)) => {
            let mut comparison = Comparison { operation_id, ..Comparison::default() };
            for table in &then.tables {
                comparison.judged.entry(&table.name).or_default().push(table);
            }
            comparison.compare_tables(&here, &there);
            comparison.compare_catalogues(then, examination);
            return Ok(Some(comparison));
        }
    };
    Ok(Some(Comparison { operation_id, refused: Some(refused), ..Comparison::default() }))
}

/// The release of a server that keeps its formats: `server_version_num` without the patch's two digits. PostgreSQL
/// 17.5 is 170005, MySQL 8.0.35 is 80035, MariaDB 10.11.6 is 101106.
fn series(version: u32) -> u32 {
    version / 100
}

/// Why nothing of two restores can be compared.
fn not_comparable(then: &EarlierRestore, here: &ExaminationPlan) -> Option<String> {
    if then.verdict != Verdict::Proven {
        return Some("it did not find the snapshot proven".to_owned());
    }
    if then.plan.format != here.format {
        return Some("its digests were made by another version of Lifeboat".to_owned());
    }
    let (was, is) = (then.plan.server.version, here.server.version);
    if series(was) != series(is) {
        return Some(format!("the restored server's version was {was} then, and is {is} now"));
    }
    if then.plan.frame_operation_id != here.frame_operation_id {
        return Some("its digests were made beside another frame".to_owned());
    }
    None
}

/// A table of a restore, with everything that was read of it.
#[derive(Debug)]
struct Cut<'a> {
    facts: &'a TableFacts,
    /// In order, each with the rows that it speaks of; `None`: all of them.
    slices: Vec<(Option<&'a Visibility>, &'a SliceResult)>,
}

/// A table's slices together.
#[derive(Debug)]
struct Whole<'a> {
    speaks_of: Option<&'a Visibility>,
    /// What was not digested.
    odd: Vec<&'a SliceOutcome>,
    digest: Digest,
    newer_rows: Option<u64>,
}

impl Cut<'_> {
    fn rows(&self) -> u64 {
        self.slices.iter().map(|(_, slice)| digest(slice).rows + slice.newer_rows.unwrap_or(0)).sum()
    }

    /// Everything that was read, where all of it speaks of the same rows.
    fn whole(&self) -> Option<Whole<'_>> {
        let speaks_of = self.slices.first()?.0;
        if self.slices.iter().any(|(visibility, _)| *visibility != speaks_of) {
            return None;
        }
        let odd = self.slices.iter().map(|(_, slice)| &slice.outcome);
        let odd = odd.filter(|outcome| !matches!(outcome, SliceOutcome::Digested(_))).collect();
        let digest = self.slices.iter().map(|(_, slice)| digest(slice)).sum();
        let newer_rows = self.slices.iter().map(|(_, slice)| slice.newer_rows).sum();
        Some(Whole { speaks_of, odd, digest, newer_rows })
    }

    fn is_unlogged(&self) -> bool {
        self.facts.persistence == Persistence::Unlogged
    }
}

fn cuts<'a>(plan: &'a ExaminationPlan, units: &'a [UnitResult]) -> Result<BTreeMap<&'a TableName, Cut<'a>>> {
    let results = in_order("examination", &plan.operation_id, &plan.units, units)?;
    let mut cuts: Vec<Cut<'a>> = plan.tables.iter().map(|facts| Cut { facts, slices: Vec::new() }).collect();
    for (unit, of_frame) in plan.units.iter().zip(&plan.frame_units) {
        let Some(result) = results.get(&unit.id) else { continue };
        let visibility = of_frame.map(|_| &result.visibility);
        for slice in &result.slices {
            if let Some(cut) = cuts.get_mut(slice.slice.table) {
                cut.slices.push((visibility, slice));
            }
        }
    }
    Ok(cuts
        .into_iter()
        .map(|mut cut| {
            cut.slices.sort_by_key(|(_, slice)| slice.slice);
            (&cut.facts.name, cut)
        })
        .collect())
}

/// One table on both restores, with the slices that differ.
fn beside(here: &Cut<'_>, there: &Cut<'_>) -> (BesideEarlier, Vec<Slice>) {
    let different = |slices| (BesideEarlier::Different { rows: there.rows() }, slices);
    let cannot = |reason: &str| (BesideEarlier::NotComparable { reason: reason.to_owned() }, Vec::new());
    let (is, was) = (here.facts, there.facts);
    if is.structure != was.structure || is.persistence != was.persistence {
        return different(Vec::new());
    }
    if here.is_unlogged() {
        return cannot("it is unlogged");
    }
    let keyed = |facts: &TableFacts| {
        let keyed = facts.keyed.as_ref()?;
        Some((keyed.columns.clone(), keyed.key.clone(), keyed.versioned))
    };
    if is.columns != was.columns || keyed(is) != keyed(was) {
        return cannot("other columns were digested");
    }
    let range = |(visibility, slice): &(Option<&Visibility>, &SliceResult)| {
        (slice.slice.first_block, slice.slice.end_block, visibility.cloned())
    };
    let bounds = |facts: &TableFacts| facts.keyed.as_ref().map(|keyed| keyed.bounds.clone());
    if bounds(is) == bounds(was) && here.slices.iter().map(range).eq(there.slices.iter().map(range)) {
        let bad: Vec<Slice> = here
            .slices
            .iter()
            .zip(&there.slices)
            .filter(|((_, is), (_, was))| !same(is, was))
            .map(|((_, is), _)| is.slice)
            .collect();
        return if bad.is_empty() { (BesideEarlier::Equal, bad) } else { different(bad) };
    }
    // Cut otherwise: digests of the whole say as much, as long as all of them speak of the same rows.
    match (here.whole(), there.whole()) {
        (Some(is), Some(was)) if is.speaks_of == was.speaks_of => {
            let counted = is.newer_rows.zip(was.newer_rows).is_none_or(|(is, was)| is == was);
            if (is.odd, is.digest) == (was.odd, was.digest) && counted {
                (BesideEarlier::Equal, Vec::new())
            } else {
                different(here.slices.iter().map(|(_, slice)| slice.slice).collect())
            }
        }
        _ => cannot("its digests speak of other rows"),
    }
}

/// Whether two results speak of the same content: also of as many newer rows, where both counted them.
fn same(is: &SliceResult, was: &SliceResult) -> bool {
    is.outcome == was.outcome && is.newer_rows.zip(was.newer_rows).is_none_or(|(is, was)| is == was)
}

impl<'a> Comparison<'a> {
    fn compare_tables(
        &mut self,
        here: &BTreeMap<&'a TableName, Cut<'a>>,
        there: &BTreeMap<&'a TableName, Cut<'a>>,
    ) {
        for (name, cut) in here {
            let found = match there.get(name) {
                Some(was) => beside(cut, was),
                None => (BesideEarlier::New, Vec::new()),
            };
            self.tables.insert(name, found);
        }
        for (name, cut) in there {
            if !here.contains_key(name) {
                self.tables.insert(name, (BesideEarlier::Missing { rows: cut.rows() }, Vec::new()));
                self.missing.push(cut.facts);
            }
        }
    }

    fn differs(&mut self, subject: impl Into<String>, what: &str) {
        let message =
            format!("{what} It is not what it was when {} restored the same snapshot.", self.then());
        self.findings.push(finding(Severity::Error, FindingKind::RestoreDiffers, subject, message));
    }

    /// The earlier proof, where it is known.
    pub(super) fn operation_id(&self) -> Option<&'a str> {
        self.operation_id
    }

    fn then(&self) -> &'a str {
        self.operation_id.unwrap_or("an earlier proof")
    }

    fn compare_catalogues(&mut self, then: &'a EarlierRestore, examination: &'a Examination) {
        let (is, was) = (&examination.catalogue, &then.catalogue);
        let (server, then_server) = (&examination.plan.server, &then.plan.server);
        if let (Some(is), Some(was)) = (&server.system_identifier, &then_server.system_identifier)
            && is != was
        {
            self.differs("the server", &format!("Its system identifier is {is}, and was {was}."));
        }
        if server.version != then_server.version {
            // An update may bring new objects with it. The rows stay as they are.
            self.findings.push(finding(
                Severity::Warning,
                FindingKind::EarlierNotComparable,
                self.then(),
                format!(
                    "The catalogues were not compared with that restore's: the server's version was {} then, and is {}.",
                    then_server.version, server.version
                ),
            ));
            return;
        }
        let databases: BTreeSet<&String> = is.schema.keys().chain(was.schema.keys()).collect();
        for database in databases {
            let (Some(now), Some(then)) = (is.schema.get(database), was.schema.get(database)) else {
                self.differs(database.clone(), "The database is on one of two restores only.");
                continue;
            };
            let classes: BTreeSet<&String> = now.keys().chain(then.keys()).collect();
            for class in classes {
                if now.get(class) != then.get(class) {
                    self.differs(format!("{database} ({class})"), "The catalogue is another.");
                }
            }
        }
        let index = |all: &'a [SequenceFacts]| -> BTreeMap<&'a TableName, &'a SequenceFacts> {
            all.iter().map(|sequence| (&sequence.name, sequence)).collect()
        };
        let (now, then) = (index(&is.sequences), index(&was.sequences));
        let names: BTreeSet<&TableName> = now.keys().chain(then.keys()).copied().collect();
        for name in names {
            if now.get(name) != then.get(name) {
                self.differs(name.to_string(), "The sequence, or what it feeds, is another.");
            }
        }
        let pairs: [(&str, &Vec<String>, &Vec<String>); 2] = [
            ("invalid indexes", &is.invalid_indexes, &was.invalid_indexes),
            (
                "constraints that were never validated",
                &is.unvalidated_constraints,
                &was.unvalidated_constraints,
            ),
        ];
        for (what, now, then) in pairs {
            let (now, then): (BTreeSet<&String>, BTreeSet<&String>) =
                (now.iter().collect(), then.iter().collect());
            if now != then {
                self.differs(what, "The list is another.");
            }
        }
        if is.heartbeat != was.heartbeat {
            self.differs("lifeboat.heartbeat", "The newest beat is another.");
        }
    }

    /// What a table of this restore is in the light of the earlier one.
    pub(super) fn weigh(&self, own: TableJudgement) -> TableJudgement {
        let Some((beside, blame)) = self.tables.get(&own.name) else { return own };
        let mut table = match beside {
            BesideEarlier::Equal => self.as_then(own),
            // It says more that it cannot be read.
            BesideEarlier::Different { .. } | BesideEarlier::New
                if own.verdict != TableVerdict::Unreadable =>
            {
                let reason = Reason::ContentDiffers;
                TableJudgement {
                    verdict: reason.verdict(),
                    reason,
                    blocks: ranges(blame.clone()),
                    proven_rows: if blame.is_empty() { 0 } else { own.proven_rows },
                    ..own
                }
            }
            _ => own,
        };
        table.earlier = Some(beside.clone());
        table
    }

    /// The same rows have the verdict that they had, by a proof that knew more: it could ask the source.
    fn as_then(&self, own: TableJudgement) -> TableJudgement {
        let then = self.judged.get(&own.name).into_iter().flatten().find(|then| {
            then.verdict <= TableVerdict::Plausible
                && then.reason != Reason::DroppedSince
                && (then.rows, then.newer_rows) == (own.rows, own.newer_rows)
        });
        match then {
            Some(then) => {
                TableJudgement { bytes: own.bytes, name: own.name, earlier: None, ..(*then).clone() }
            }
            None => own,
        }
    }

    /// Adds to the tables that the frame has and this restore has not those that the earlier restore had.
    pub(super) fn weigh_gone(&self, gone: &mut Vec<TableJudgement>) {
        for facts in &self.missing {
            let lacks = TableJudgement {
                earlier: self.tables.get(&facts.name).map(|(beside, _)| beside.clone()),
                bytes: 0,
                ..blank(facts, Reason::TableMissing)
            };
            match gone.iter_mut().find(|table| table.name == facts.name) {
                Some(known) => {
                    *known =
                        TableJudgement { framed_rows: known.framed_rows, residue: known.residue, ..lacks };
                }
                None => gone.push(lacks),
            }
        }
    }

    /// Of everything but the tables, and of what could not be compared.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let mut found = self.findings.clone();
        let subject = self.then();
        let mut warn = |message: String| {
            found.push(finding(Severity::Warning, FindingKind::EarlierNotComparable, subject, message));
        };
        if let Some(reason) = &self.refused {
            warn(format!(
                "The snapshot was proven before, and this restore could not be compared with that one: {reason}. What \
                 changed on the source between frame and snapshot is explained by its counters only."
            ));
        }
        let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
        for (beside, _) in self.tables.values() {
            if let BesideEarlier::NotComparable { reason } = beside {
                *reasons.entry(reason).or_default() += 1;
            }
        }
        for (reason, tables) in reasons {
            warn(format!("{tables} tables could not be compared with that restore: {reason}."));
        }
        found
    }

    /// How far it was compared.
    pub(super) fn summary(&self, tables: &[TableJudgement]) -> EarlierProof {
        let mut summary = EarlierProof {
            operation_id: self.operation_id.map(str::to_owned),
            not_comparable: self.refused.clone(),
            equal: Amount::default(),
            different: Amount::default(),
            unknown: Amount::default(),
        };
        for table in tables {
            let sum = match &table.earlier {
                Some(BesideEarlier::Equal) => &mut summary.equal,
                Some(
                    BesideEarlier::Different { .. } | BesideEarlier::New | BesideEarlier::Missing { .. },
                ) => &mut summary.different,
                // The frame's, and gone from the source before the snapshot: neither restore has them.
                None if self.refused.is_none() => continue,
                Some(BesideEarlier::NotComparable { .. }) | None => &mut summary.unknown,
            };
            sum.tables += 1;
            sum.rows += table.rows + table.newer_rows;
            sum.bytes += table.bytes;
        }
        summary
    }
}
