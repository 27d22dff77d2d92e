//! Carrying an experiment on: look, ask the journal what is next, write it down, do it.

use std::collections::BTreeMap;
use std::time::Duration;

use dr_aws::Invocation;
use dr_aws::state::Applied;
use dr_core::chaos::journal::{Decision, Journal, Phase, Sight};
use dr_core::chaos::probe::{Finding, Probe};
use dr_core::chaos::world::{Resource, State};
use dr_core::control::EmergencyStop;
use dr_core::ids::OperationId;
use dr_core::observed::Observed;
use dr_core::{ErrorName, Result};

use crate::probes::Asker;
use crate::request::Standing;
use crate::{Desk, standing};

/// What one invocation spends on an experiment.
const SPENT: Duration = Duration::from_secs(20);
/// What is kept for the end of an invocation: the longest call and a write.
const KEPT: Duration = Duration::from_secs(30);
/// When to come back while somebody else works on it, seconds.
const OTHERS_TURN: u32 = 10;

/// Until how much of the invocation's time is left it goes on.
pub(crate) fn budget(invocation: &Invocation) -> Duration {
    invocation.remaining().saturating_sub(SPENT).max(KEPT)
}

impl Desk<'_> {
    /// Goes on until something has to be waited for, or less than `until` of the invocation is left.
    ///
    /// # Errors
    /// Of the table; what AWS says to a change is written into the journal.
    pub(crate) async fn carry_on(
        &self,
        operation: &OperationId,
        me: &str,
        until: Duration,
        invocation: &Invocation,
    ) -> Result<Standing> {
        loop {
            let journal = self.expect_journal(operation).await?;
            if !journal.is_open() {
                return standing(&journal, 0, "it is over");
            }
            let now = invocation.now();
            if journal.holder != me || journal.lease_until <= now {
                match journal.take(me, now) {
                    Ok(taken) => self.save(&taken, journal.version).await?,
                    Err(error) if error.name() == ErrorName::OperationInProgress => {
                        return standing(&journal, OTHERS_TURN, error.what());
                    }
                    Err(error) => return Err(error),
                };
                continue;
            }
            match self.next(&journal, invocation).await? {
                Decision::Write(next) => {
                    self.save(&next, journal.version).await?;
                }
                Decision::Change { before, entry, change, resource } => {
                    if self.save(&before, journal.version).await? == Applied::Yes {
                        let made = self.make(&change, &resource, &before).await;
                        let after = match made {
                            Ok(()) => before.made(entry, invocation.now()),
                            Err(error) => {
                                tracing::warn!(error = %error, "a change was refused: {error}");
                                before.refused(entry, &error.to_string(), invocation.now())
                            }
                        };
                        self.save(&after, before.version).await?;
                    }
                }
                Decision::Wait { seconds, why } => return standing(&journal, seconds, why),
                Decision::Over => return standing(&journal, 0, "it is over"),
            }
            if invocation.remaining() <= until {
                return standing(&self.expect_journal(operation).await?, 1, "there is more to do at once");
            }
        }
    }

    /// Looks, as far as the phase needs it, and asks what is next.
    async fn next(&self, journal: &Journal, invocation: &Invocation) -> Result<Decision> {
        let plan = &journal.plan;
        let none: Vec<Probe> = Vec::new();
        let (conditions, steady, checks) = match journal.status {
            Phase::Injecting => (&plan.stop_conditions, &none, &none),
            Phase::Observing => (&plan.stop_conditions, &plan.steady_state, &none),
            Phase::Recovering => (&none, &plan.steady_state, &plan.post_checks),
            Phase::RollingBack | Phase::Stuck | Phase::Ended => (&none, &none, &none),
        };
        let ask = async |probes: &Vec<Probe>| -> Vec<Finding> {
            let of = Asker { operation: &journal.owner, look_only: false };
            self.handler.ask(probes, plan, of, invocation).await
        };
        let (states, stop, conditions, steady) = tokio::try_join!(
            self.states(journal),
            self.table.read::<EmergencyStop>(EmergencyStop::KEY),
            async { Ok(ask(conditions).await) },
            async { Ok(ask(steady).await) },
        )?;
        // What is asked last costs most, and only matters when the rest is well.
        let checks = if dr_core::chaos::probe::first_fault(&steady).is_none() {
            ask(checks).await
        } else {
            Vec::new()
        };
        let sight = Sight {
            stop: stop.as_ref(),
            states: &states,
            conditions: &conditions,
            steady: &steady,
            checks: &checks,
        };
        Ok(journal.decide(&sight, invocation.now()))
    }

    /// What the watched resources are now. What could not be looked at is left out.
    async fn states(&self, journal: &Journal) -> Result<BTreeMap<Resource, Option<State>>> {
        let looks = !matches!(journal.status, Phase::Recovering);
        let watched = if looks { journal.plan.watched() } else { std::collections::BTreeSet::new() };
        let mut states = BTreeMap::new();
        for (resource, observed) in self.look(&watched).await? {
            match observed {
                Observed::Found(facts) => states.insert(resource, Some(facts.state)),
                Observed::Missing => states.insert(resource, None),
                Observed::Unreachable(error) => {
                    tracing::warn!(error = %error, "{resource} could not be looked at: {error}");
                    None
                }
            };
        }
        Ok(states)
    }
}
