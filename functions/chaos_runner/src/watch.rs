//! The watchdog: finishes what lost runners left, here and, from a standby, at home.

use dr_aws::Invocation;
use dr_aws::metrics;
use dr_core::Result;
use dr_core::chaos::journal::{Journal, Phase};

use crate::carry::budget;
use crate::request::{Answer, Watched};
use crate::world::won;
use crate::{Desk, Handler};

impl Handler {
    /// Takes over every experiment whose runner was not heard of for a lease, one after the other.
    ///
    /// # Errors
    /// Of the tables. Trouble with one experiment does not keep the others from being put back.
    pub(crate) async fn watch(&self, invocation: &Invocation) -> Result<Answer> {
        let mut watched = Watched::default();
        let home = self.home().watch(invocation, &mut watched).await;
        if let Some((region, table)) = &self.config.home {
            self.desk_in(region, table).watch(invocation, &mut watched).await?;
        }
        home?;
        #[expect(clippy::cast_precision_loss, reason = "a count of experiments")]
        metrics::value(metrics::EXPERIMENTS_STUCK, "experiment", watched.stuck as f64);
        Ok(Answer::Watched(watched))
    }
}

impl Desk<'_> {
    /// Journals of experiments that are not over.
    pub(crate) async fn open(&self) -> Result<Vec<Journal>> {
        let mut open = Vec::new();
        for phase in Phase::ALL.into_iter().filter(|phase| *phase != Phase::Ended) {
            open.extend(self.table.list_with_status::<Journal>("journal", phase.as_str()).await?);
        }
        Ok(open)
    }

    async fn watch(&self, invocation: &Invocation, watched: &mut Watched) -> Result<()> {
        let me = format!("watchdog in {}", self.handler.clients.home());
        let until = budget(invocation);
        for listed in self.open().await? {
            watched.open += 1;
            // The index is behind; what counts is the item.
            let Some(journal) = self.journal(&listed.owner).await?.filter(Journal::is_open) else { continue };
            let mine = journal.holder == me;
            if !mine && !journal.is_abandoned(invocation.now()) {
                continue;
            }
            watched.abandoned += 1;
            if invocation.remaining() <= until {
                continue;
            }
            if let Err(error) = self.finish(&journal, &me, invocation, watched).await {
                tracing::error!(
                    operation = journal.owner.as_str(),
                    error = %error,
                    "experiment {} could not be brought further: {error}",
                    journal.owner
                );
            }
        }
        Ok(())
    }

    async fn finish(
        &self,
        journal: &Journal,
        me: &str,
        invocation: &Invocation,
        watched: &mut Watched,
    ) -> Result<()> {
        let standing = self.carry_on(&journal.owner, me, budget(invocation), invocation).await?;
        let journal = self.expect_journal(&journal.owner).await?;
        match standing.phase {
            Phase::Ended => {
                watched.ended += 1;
                let reported = self.write_report(&journal).await?;
                self.announce(&reported).await
            }
            Phase::Stuck => {
                watched.stuck += 1;
                let Some(paged) = journal.page(invocation.now()) else { return Ok(()) };
                let change = dr_core::chaos::records::save(&paged, journal.version, &[]);
                if won(self.table.apply(&change).await?) {
                    self.announce(&self.write_report(&paged).await?).await?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
