//! The watchdog: finishes what lost runners left, here and, from a standby, at home.

use std::collections::BTreeMap;

use dr_aws::Invocation;
use dr_aws::metrics;
use dr_core::chaos::data::Known;
use dr_core::chaos::journal::{Journal, Phase};
use dr_core::chaos::records;
use dr_core::control::HolderState;
use dr_core::operation::{Kind, Operation, Status};
use dr_core::{DrError, ErrorName, Result};
use futures_util::future::join_all;
use serde_json::json;

use crate::carry::budget;
use crate::request::{Answer, Reported, Watched};
use crate::{Desk, Handler, told};

impl Handler {
    /// Takes over every experiment whose runner was not heard of for a lease.
    ///
    /// # Errors
    /// Of the tables. Trouble with one experiment does not keep the others from being put back.
    pub(crate) async fn watch(&self, invocation: &Invocation) -> Result<Answer> {
        let mut watched = Watched::default();
        let home = self.home().watch(invocation, &mut watched).await;
        let said = self.home().say_what_is_unsaid().await;
        if let Some((region, table)) = &self.config.home {
            self.desk_in(region, table).watch(invocation, &mut watched).await?;
        }
        home?;
        said?;
        #[expect(clippy::cast_precision_loss, reason = "a count of experiments")]
        metrics::value(metrics::EXPERIMENTS_STUCK, "experiment", (watched.stuck + watched.failed) as f64);
        Ok(Answer::Watched(watched))
    }
}

impl Desk<'_> {
    /// Journals of experiments that are not over, and what is in the way of reading some.
    pub(crate) async fn open(&self) -> Result<(Vec<Journal>, Vec<DrError>)> {
        // One that goes on meanwhile is listed in two phases, or in an older one. It goes back only from stuck to rolling
        // back, which is why that is asked for twice.
        let (mut open, mut unread) = (BTreeMap::new(), Vec::new());
        let phases = Phase::ALL.into_iter().filter(|phase| *phase != Phase::Ended);
        for (at, phase) in phases.chain([Phase::RollingBack]).enumerate() {
            for journal in self.table.list_with_status::<Journal>("journal", phase.as_str()).await? {
                match journal {
                    Ok(journal) => drop(open.insert(journal.owner.clone(), journal)),
                    Err(error) if at < Phase::ALL.len() - 1 => unread.push(error),
                    // What cannot be read was found the first time.
                    Err(_) => {}
                }
            }
        }
        Ok((open.into_values().collect(), unread))
    }

    /// All at once: what one of them waits for must not keep another from being put back.
    async fn watch(&self, invocation: &Invocation, watched: &mut Watched) -> Result<()> {
        let me = format!("watchdog in {}", self.handler.clients.home());
        let (open, unread) = self.open().await?;
        watched.open += open.len() + unread.len();
        watched.failed += unread.len();
        for error in &unread {
            tracing::error!(error = %error, "an experiment's journal cannot be read: {error}");
        }
        let came = join_all(open.iter().map(async |listed| self.look_after(listed, &me, invocation).await));
        for (listed, came) in open.iter().zip(came.await) {
            let overdue = listed.is_overdue(invocation.now());
            watched.abandoned += usize::from(came.as_ref().is_ok_and(Option::is_some));
            match came {
                Ok(phase) => {
                    watched.ended += usize::from(phase == Some(Phase::Ended));
                    watched.stuck += usize::from(phase == Some(Phase::Stuck));
                }
                // Trouble that passes is tried again in a minute; trouble that lasts needs a person.
                Err(error) => {
                    let operation = listed.owner.as_str();
                    tracing::error!(operation, error = %error, "experiment {operation} was not brought further: {error}");
                    watched.failed += usize::from(overdue);
                }
            }
        }
        Ok(())
    }

    /// All at once, as in [`Self::watch`].
    async fn say_what_is_unsaid(&self) -> Result<()> {
        let unsaid = self.unsaid().await?;
        let said =
            join_all(unsaid.iter().map(async |journal| (&journal.owner, self.conclude(journal).await)));
        for (operation, said) in said.await {
            if let Err(error) = said {
                let operation = operation.as_str();
                tracing::error!(operation, error = %error, "the end of {operation} could not be told: {error}");
            }
        }
        Ok(())
    }

    /// Takes an experiment over if nobody works on it; answers where it is then.
    async fn look_after(&self, listed: &Journal, me: &str, invocation: &Invocation) -> Result<Option<Phase>> {
        // The index is behind; what counts is the item.
        let journal = self.journal(&listed.owner).await?.filter(Journal::is_open);
        match journal {
            Some(journal) if journal.holder == me || journal.is_abandoned(invocation.now()) => {
                Box::pin(self.finish(&journal, me, invocation)).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Experiments of this stack that are over, and whose execution was lost before it could say so: everything is put back,
    /// and nobody knows.
    async fn unsaid(&self) -> Result<Vec<Journal>> {
        let mut unsaid = Vec::new();
        let (kind, status) = (Kind::Chaos.as_str(), Status::Running.as_str());
        for operation in self.table.list_with_status::<Operation>(kind, status).await? {
            let operation = match operation {
                Ok(operation) => operation,
                Err(error) => {
                    tracing::error!(error = %error, "an experiment's operation cannot be read: {error}");
                    continue;
                }
            };
            let over = self.journal(&operation.operation_id).await?.filter(|journal| !journal.is_open());
            if let Some(journal) = over
                && self.has_lost_its_execution(&journal).await
            {
                unsaid.push(journal);
            }
        }
        Ok(unsaid)
    }

    async fn has_lost_its_execution(&self, journal: &Journal) -> bool {
        self.handler.executions.holder_state(&journal.owner_execution).await == HolderState::Ended
    }

    /// Reports, tells people, and records what became of an operation, in this order: what fails is done again, because the
    /// operation is not recorded yet.
    async fn conclude(&self, journal: &Journal) -> Result<()> {
        let known = self.handler.comparison(journal).await?;
        let reported = self.write_report(journal, known.clone()).await?;
        self.announce(&reported).await?;
        told::count(journal, known, told::Moment::Reported);
        // One that cannot be told keeps nobody from what follows.
        if let Err(error) = self.handler.tell_channels(journal, &reported).await {
            tracing::error!(error = %error, "a channel of {} was not told: {error}", journal.owner);
        }
        self.record(journal, &reported).await
    }

    /// Records what became of an operation whose execution cannot. Only `update_state` writes operations, and only that of
    /// their own stack: one of a home that was away is recorded there, when it is back.
    async fn record(&self, journal: &Journal, reported: &Reported) -> Result<()> {
        let handler = self.handler;
        if self.region != *handler.clients.home() || !self.has_lost_its_execution(journal).await {
            return Ok(());
        }
        let ending = json!({"succeed": {"operationId": journal.owner, "result": reported}});
        match handler.invoke(handler.config.update_state.as_deref(), &ending).await {
            // Its execution has said already that it failed.
            Err(error) if error.name() == ErrorName::IllegalTransition => Ok(()),
            other => other.map(|_| ()),
        }
    }

    async fn finish(&self, journal: &Journal, me: &str, invocation: &Invocation) -> Result<Phase> {
        let phase = self.carry_on(&journal.owner, me, budget(invocation), invocation).await?.phase;
        let journal = self.expect_journal(&journal.owner).await?;
        match phase {
            Phase::Ended => self.conclude(&journal).await?,
            Phase::Stuck => {
                // A person is called first: a page that is sent twice is better than one that is noted and not sent.
                if let Some(paged) = journal.page(invocation.now()) {
                    let (reported, kept) = self.reported(&paged, Known::Nothing).await?;
                    self.announce(&reported).await?;
                    // Whoever wrote in between goes on with it; the page is sent.
                    let _applied = self.table.apply(&records::save(&paged, journal.version, &[])).await?;
                    kept?;
                }
            }
            Phase::Injecting | Phase::Observing | Phase::RollingBack | Phase::Recovering => {}
        }
        Ok(phase)
    }
}
