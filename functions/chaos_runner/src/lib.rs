//! `chaos_runner`: plans experiments, begins them with approvals and locks, carries them through step by step, and puts
//! back what they and lost runners changed.
//!
//! It decides nothing: what happens next is said by `dr_core::chaos`, from the journal and from what is seen now. It waits
//! for nothing: it goes on as far as nothing has to be waited for, and says when to come back.

mod approvals;
mod begin;
mod carry;
mod config;
mod probes;
mod request;
mod stop;
mod told;
mod watch;
mod world;

use dr_aws::Invocation;
use dr_aws::clients::Clients;
use dr_aws::executions::Executions;
use dr_aws::http::Http;
use dr_aws::state::{Applied, StateTable};
use dr_chaos::World;
use dr_core::changes::Change;
use dr_core::chaos::data::Known;
use dr_core::chaos::journal::{Journal, Phase};
use dr_core::chaos::records::{self, Pending};
use dr_core::chaos::report;
use dr_core::control::Lock;
use dr_core::ids::{OperationId, Region};
use dr_core::{DrError, ErrorName, Result};
use jiff::Timestamp;

pub use config::{ApprovalKeys, Config, Topics};
pub use request::{Answer, Request};

use request::{Line, Standing, Status};

/// How often a change is decided again when somebody else wrote in between.
const MOST_ATTEMPTS: u32 = 5;

/// What the function works with.
#[derive(Debug)]
pub struct Handler {
    clients: Clients,
    world: World,
    executions: Executions,
    http: Http,
    config: Config,
}

impl Handler {
    /// A handler over these clients.
    ///
    /// # Errors
    /// [`ErrorName::InvalidConfiguration`] when the authorities for HTTP probes cannot be read.
    pub fn new(clients: Clients, config: Config) -> Result<Self> {
        Ok(Self {
            world: World::new(&clients),
            executions: Executions::new(clients.config()),
            http: Http::new(config.probe_ca_file.as_deref())?,
            clients,
            config,
        })
    }

    /// Answers one request.
    ///
    /// # Errors
    /// Named as in `docs/errors.md`.
    pub async fn handle(&self, request: Request, invocation: &Invocation) -> Result<Answer> {
        match request {
            Request::Plan(request) => self.plan(request, invocation).await,
            Request::AwaitApproval(request) => self.await_approval(&request, invocation).await,
            Request::Approve(request) => self.approve(&request, invocation).await,
            Request::Arm(request) => self.arm(request, invocation).await,
            Request::Advance(request) => {
                let me = request.execution.as_str();
                let desk = self.home();
                let standing =
                    desk.carry_on(&request.operation_id, me, carry::budget(invocation), invocation);
                standing.await.map(|standing| Answer::Standing(Box::new(standing)))
            }
            Request::Report(request) => self.report(&request).await,
            Request::Cancel(request) => self.cancel(&request, invocation).await,
            Request::EmergencyStop(words) => self.emergency_stop(true, &words, invocation).await,
            Request::LiftEmergencyStop(words) => self.emergency_stop(false, &words, invocation).await,
            Request::Watch(_) => self.watch(invocation).await,
            Request::Unblock(request) => self.unblock(&request).await,
            Request::Status(request) => self.status(&request.operation_id).await,
        }
    }

    /// The experiments of this stack.
    fn home(&self) -> Desk<'_> {
        let table = StateTable::new(self.clients.dynamodb(), &self.config.table);
        Desk { handler: self, table, region: self.clients.home().clone() }
    }

    /// The experiments of another Region's stack, whose table has this name.
    fn desk_in(&self, region: &Region, table: &str) -> Desk<'_> {
        let table = StateTable::new(self.clients.dynamodb_in(region), table);
        Desk { handler: self, table, region: region.clone() }
    }

    async fn status(&self, operation: &OperationId) -> Result<Answer> {
        let desk = self.home();
        if let Some(journal) = desk.journal(operation).await? {
            return Ok(Answer::Status(Box::new(status_of(&journal)?)));
        }
        let pending: Option<Pending> = desk.table.read(&Pending::key(operation)).await?;
        let Some(pending) = pending else {
            let what = format!("looking for the journal of {operation}");
            return Err(DrError::new(ErrorName::OperationMissing, what).with_remedy(
                "Before an experiment begins, its execution says where it is; a dry run has no journal.",
            ));
        };
        Ok(Answer::Status(Box::new(Status {
            operation_id: operation.clone(),
            experiment_id: pending.plan.experiment_id.clone(),
            phase: "awaiting-approval".to_owned(),
            holder: None,
            lease_until: None,
            reason: None,
            journal: Vec::new(),
            before: Vec::new(),
            during: Vec::new(),
            after: Vec::new(),
            approved_by: pending.approvals.iter().map(|one| one.approver.clone()).collect(),
            plan_hash: pending.plan_hash,
            metrics: None,
            commands: Vec::new(),
        })))
    }
}

/// The experiments of one stack: its table, and where that is. A standby works on its home's, too.
struct Desk<'a> {
    handler: &'a Handler,
    table: StateTable,
    region: Region,
}

impl Desk<'_> {
    async fn journal(&self, operation: &OperationId) -> Result<Option<Journal>> {
        self.table.read(&Journal::key(operation)).await
    }

    async fn expect_journal(&self, operation: &OperationId) -> Result<Journal> {
        self.journal(operation).await?.ok_or_else(|| {
            DrError::new(ErrorName::OperationMissing, format!("reading the journal of {operation}"))
                .with_remedy("The experiment has not begun: stop its execution, if it must not.")
        })
    }

    /// Writes a journal that follows the one of version `before`. Before it ends its report is written: there is none that
    /// ended without. With the end the locks go, that of the experiment among them, whose execution may be gone. What was
    /// left with another Region's stack goes as soon as everything is put back: that stack has nothing to put back any more.
    async fn save(&self, journal: &Journal, before: u64) -> Result<Applied> {
        if matches!(journal.status, Phase::Recovering | Phase::Ended) {
            self.forget_there(&journal.owner, &journal.plan.region).await;
        }
        let mut locks = Vec::new();
        if !journal.is_open() {
            self.write_report(journal, Known::Nothing).await?;
            locks = self.locks_to_release(journal).await?;
            locks.extend(self.table.read(&Lock::key(&records::resource(&journal.plan.experiment_id))).await?);
        }
        let applied = self.table.apply(&records::save(journal, before, &locks)).await?;
        if applied == Applied::Yes {
            told::count(journal, Known::Nothing, told::Moment::Saved);
        }
        Ok(applied)
    }

    /// Leaves a journal that is about to begin with the stack in the Region of its resources, if there is one: should this
    /// Region be away when it must be over, somebody there knows what to put back.
    async fn leave_there(&self, journal: &Journal, now: Timestamp) -> Result<()> {
        let Some(there) = self.there(&journal.plan.region) else { return Ok(()) };
        let left = there.change("leaving an experiment with the Region that it breaks", async || {
            let left = there.journal(&journal.owner).await?;
            let locks = there.locks(journal).await?;
            Ok((Some(records::leave(journal, left.as_ref(), &locks, now)?), ()))
        });
        match Box::pin(left).await {
            Err(error) if error.name() == ErrorName::StateTableMissing => Ok(()),
            other => other,
        }
    }

    /// Takes back what was left there of an experiment that has nothing to put back. What cannot be taken back ends by itself:
    /// the watchdog there finds everything as it was.
    async fn forget_there(&self, operation: &OperationId, region: &Region) {
        let Some(there) = self.there(region) else { return };
        let taken = there.change("taking an experiment back from the Region that it broke", async || {
            let left = there.journal(operation).await?;
            let locks = match &left {
                Some(left) => there.locks_to_release(left).await?,
                None => Vec::new(),
            };
            Ok((records::withdraw(left.as_ref(), &locks), ()))
        });
        match Box::pin(taken).await {
            Err(error) if error.name() != ErrorName::StateTableMissing => {
                tracing::warn!(error = %error, "{operation} stays known in {region} until its lease there ends: {error}");
            }
            _ => {}
        }
    }

    /// The locks of what a journal's plan names, whosever they are.
    async fn locks_to_release(&self, journal: &Journal) -> Result<Vec<Lock>> {
        let mut locks = Vec::new();
        for name in records::locks_of(&journal.plan, &self.region) {
            locks.extend(self.table.read(&Lock::key(&name)).await?);
        }
        Ok(locks)
    }

    /// The stack in the Region of an experiment's resources, if that is another one. Its table has this one's name, unless it
    /// is this function's own or that of its home.
    fn there(&self, region: &Region) -> Option<Desk<'_>> {
        if *region == self.region {
            return None;
        }
        let (handler, config) = (self.handler, &self.handler.config);
        let table = match &config.home {
            _ if region == handler.clients.home() => &config.table,
            Some((home, table)) if home == region => table,
            _ => self.table.name(),
        };
        Some(handler.desk_in(region, table))
    }

    /// Applies what `decide` says about what it reads, again when somebody else wrote in between.
    async fn change<T>(
        &self,
        what: &str,
        decide: impl AsyncFn() -> Result<(Option<Change>, T)>,
    ) -> Result<T> {
        for _ in 0..MOST_ATTEMPTS {
            let (change, answer) = decide().await?;
            let applied = match &change {
                Some(change) => self.table.apply(change).await?,
                None => Applied::Yes,
            };
            if applied == Applied::Yes {
                return Ok(answer);
            }
        }
        Err(DrError::new(ErrorName::StateConflict, format!("{what}: lost five races")))
    }
}

fn standing(journal: &Journal, check_again_in_seconds: u32, why: impl Into<String>) -> Result<Standing> {
    Ok(Standing {
        phase: journal.status,
        reason: journal.reason.clone(),
        check_again_in_seconds,
        why: why.into(),
        plan_hash: journal.plan.hash()?,
    })
}

fn status_of(journal: &Journal) -> Result<Status> {
    let line = |entry: &dr_core::chaos::journal::Entry| Line {
        change: entry.step.change.command(&entry.step.resource),
        status: entry.status,
        begun_at: entry.begun_at,
        put_back_at: entry.put_back_at,
        starts_by_itself_at: entry.starts_by_itself_at(),
        trouble: entry.trouble.clone(),
    };
    Ok(Status {
        operation_id: journal.owner.clone(),
        experiment_id: journal.plan.experiment_id.clone(),
        phase: journal.status.as_str().to_owned(),
        holder: journal.is_open().then(|| journal.holder.clone()),
        lease_until: journal.is_open().then_some(journal.lease_until),
        reason: journal.reason.clone(),
        journal: journal.entries.iter().map(line).collect(),
        before: journal.before.clone(),
        during: journal.during.clone(),
        after: journal.after.clone(),
        approved_by: journal.approved_by.clone(),
        plan_hash: journal.plan.hash()?,
        metrics: report::report(journal, Known::Nothing).map(|report| report.metrics),
        commands: journal.commands(),
    })
}

/// The key of a plan in the metadata bucket.
fn plan_key(operation: &OperationId, hash: &str) -> String {
    format!("chaos/{operation}/plan-{hash}.json")
}

/// What a plan is kept as.
fn as_json<T: serde::Serialize>(what: &str, value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(value).map_err(|error| {
        DrError::new(ErrorName::Internal, format!("writing {what} as JSON")).with_source(error)
    })
}
