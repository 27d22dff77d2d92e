//! Ending experiments early: one, all of them, and the block of a Region.

use dr_aws::Invocation;
use dr_core::changes;
use dr_core::chaos::journal::Journal;
use dr_core::chaos::world::{Resource, ResourceKind};
use dr_core::control::EmergencyStop;
use dr_core::ids::Region;
use dr_core::input::check_words;
use dr_core::{DrError, ErrorName, Result};
use futures_util::future::join_all;

use crate::request::{Answer, Cancel, RegionStop, Stopped, Unblock, Unblocked, Words};
use crate::{Desk, Handler, standing};

impl Handler {
    /// Sets or lifts the stop in every Region; one that fails does not keep it from the others.
    pub(crate) async fn emergency_stop(
        &self,
        in_force: bool,
        words: &Words,
        invocation: &Invocation,
    ) -> Result<Answer> {
        let now = invocation.now();
        let home = self.clients.home();
        // A standby stops its home, too, whose table may have another name.
        let watched = self.config.home.as_ref().map(|(region, table)| (region, table.as_str()));
        let table = self.config.table.as_str();
        let known = |region: &Region| region == home || watched.is_some_and(|(other, _)| other == region);
        let others = self.config.limits.regions.iter().filter(|region| !known(region));
        let everywhere =
            std::iter::once((home, table)).chain(watched).chain(others.map(|region| (region, table)));
        // All at once: a Region that does not answer keeps no other waiting.
        let written = join_all(everywhere.map(async |(region, table)| {
            let desk = self.desk_in(region, table);
            let written = desk.change("changing the emergency stop", async || {
                let existing: Option<EmergencyStop> = desk.table.read(EmergencyStop::KEY).await?;
                let (by, reason) = (&words.by, &words.reason);
                Ok((Some(changes::emergency_stop(in_force, by, reason, existing.as_ref(), now)?), ()))
            });
            (region, table, Box::pin(written).await)
        }))
        .await;
        let mut regions = Vec::new();
        let mut trouble = None;
        for (region, table, written) in written {
            let status = match written {
                Ok(()) if in_force => "in-force",
                Ok(()) => "lifted",
                Err(error)
                    if error.name() == ErrorName::StateTableMissing
                        && table == self.config.table
                        && region != home =>
                {
                    "no-installation"
                }
                Err(error) => {
                    tracing::error!(error = %error, "the emergency stop was not changed in {region}: {error}");
                    trouble.get_or_insert((region.clone(), error));
                    continue;
                }
            };
            regions.push(RegionStop { region: region.clone(), status });
        }
        if let Some((region, error)) = trouble {
            let done: Vec<&str> = regions.iter().map(|done| done.region.as_str()).collect();
            let done = if done.is_empty() { "no Region".to_owned() } else { done.join(", ") };
            let what =
                format!("changing the emergency stop in {region} (changed in {done}): {}", error.what());
            return Err(DrError::new(error.name(), what));
        }
        // To look costs nothing that matters, and must not fail what was done.
        Ok(Answer::Stopped(Stopped { regions, experiments: self.count_open().await.ok() }))
    }

    /// Experiments that are not over, here and, of a standby, at home.
    async fn count_open(&self) -> Result<usize> {
        let count = async |desk: Desk<'_>| desk.open().await.map(|(open, unread)| open.len() + unread.len());
        let here = count(self.home()).await?;
        match &self.config.home {
            Some((region, table)) => Ok(here + count(self.desk_in(region, table)).await?),
            None => Ok(here),
        }
    }

    pub(crate) async fn cancel(&self, request: &Cancel, invocation: &Invocation) -> Result<Answer> {
        for (field, text) in [("by", &request.by), ("reason", &request.reason)] {
            check_words("cancelling an experiment", field, text)?;
        }
        let desk = self.home();
        let why = format!("{}: {}", request.by, request.reason);
        let journal = desk
            .change("cancelling an experiment", async || {
                let journal = desk.expect_journal(&request.operation_id).await?;
                is_of_this_stack(&journal, self.clients.home())?;
                let next = journal.cancel(&why, invocation.now());
                let change =
                    next.as_ref().map(|next| dr_core::chaos::records::save(next, journal.version, &[]));
                Ok((change, next.unwrap_or(journal)))
            })
            .await?;
        Ok(Answer::Standing(Box::new(standing(&journal, 0, "its runner puts everything back")?)))
    }

    pub(crate) async fn unblock(&self, request: &Unblock) -> Result<Answer> {
        check_words("unblocking a Region", "by", &request.by)?;
        let region = request.region.clone();
        let resource =
            Resource { kind: ResourceKind::Region, region: region.clone(), id: region.to_string() };
        self.home().unblock(&resource).await?;
        tracing::warn!(by = request.by, "{region} was unblocked by hand");
        Ok(Answer::Unblocked(Unblocked { region, blocked: false }))
    }
}

/// Refuses what another Region's stack left here: its runner would not hear of it.
fn is_of_this_stack(journal: &Journal, home: &Region) -> Result<()> {
    match journal.owner_execution.region() {
        Some(region) if region != *home => {
            let what = format!("cancelling {}: it belongs to the stack in {region}", journal.owner);
            let remedy = format!(
                "Cancel it there. If that Region is away, the watchdog here puts everything back from {} on; `status` names \
                 the commands that do so at once.",
                journal.lease_until
            );
            Err(DrError::new(ErrorName::InvalidInput, what).with_remedy(remedy))
        }
        _ => Ok(()),
    }
}
