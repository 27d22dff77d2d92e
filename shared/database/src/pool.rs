//! Some connections that share a queue of work until it is done or time is up.
//!
//! A broken connection is opened again, with growing pauses, and its task goes on where it was; a server that
//! recovers from a crash is waited for. Every finished task is handed over at once, so that whoever is killed loses
//! what was in flight and nothing more.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use dr_core::{DrError, ErrorName, Result};
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::settings::{Access, ConnectionSettings};

/// Attempts in a row that may fail before the failure is reported.
const ATTEMPTS: u32 = 6;
/// The pause after the first failure; doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// How much may be done at once, and until when.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at most.
    pub connections: usize,
    /// From then on, nothing new is begun.
    pub stop_at: Instant,
    /// From then on, what is still running is cut off and counts as not done.
    pub cut_at: Instant,
}

impl Limits {
    /// Nothing new after `work`, everything cut off after `work + grace`, from now.
    pub fn lasting(connections: usize, work: Duration, grace: Duration) -> Self {
        let stop_at = Instant::now() + work;
        Self { connections, stop_at, cut_at: stop_at + grace }
    }
}

/// How far it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Tasks that were finished and handed over.
    pub done: usize,
    /// Tasks that are left for another time.
    pub left: usize,
}

/// A connection to a server.
pub trait Connection: Sized + Send + Sync {
    /// Opens one.
    ///
    /// # Errors
    /// Of the connection.
    fn open(settings: &ConnectionSettings, access: Access) -> impl Future<Output = Result<Self>> + Send;
    /// Whether it has ended.
    fn is_closed(&self) -> bool;
    /// Names the run of the server since its last start or crash.
    fn incarnation(&self) -> &str;
    /// Whether work in this database can be done over it.
    fn serves(&self, database: &str) -> bool;
    /// Whether an error says that the server is there and recovers from a crash: that is waited for.
    fn is_recovering(error: &DrError) -> bool;
}

/// Whether trying again can help.
pub fn is_passing(error: &DrError) -> bool {
    matches!(
        error.name(),
        ErrorName::ConnectionFailed
            | ErrorName::ConnectionLost
            | ErrorName::DatabaseUnavailable
            | ErrorName::FunctionTimedOut
    )
}

/// Work for one connection to one database.
pub trait Task: Sync {
    /// Over what it is done.
    type Connection: Connection;
    /// What comes of it.
    type Output: Send;
    /// What is kept between attempts.
    type State: Default + Send;

    /// The database to connect to.
    fn database(&self) -> &str;
    /// What the connection has to allow.
    fn access(&self) -> Access;
    /// About how long it takes; work that does not fit in what is left of the time is left for the next.
    fn estimate(&self) -> Duration {
        Duration::ZERO
    }
    /// Does it. `crashed`: the server went down and came back since the last attempt.
    fn run(
        &self,
        session: &Self::Connection,
        state: &mut Self::State,
        crashed: bool,
    ) -> impl Future<Output = Result<Self::Output>> + Send;
    /// What to hand over when it had (nearly) all of the time and did not finish; `None` to try it again.
    fn expired(&self, _after: Duration) -> Option<Self::Output> {
        None
    }
}

struct Shared<'p, T, S> {
    settings: &'p ConnectionSettings,
    queue: Mutex<VecDeque<T>>,
    limits: Limits,
    begun: Instant,
    failed: AtomicBool,
    done: AtomicUsize,
    store: S,
}

/// Runs tasks. The first error ends it, after the other connections have finished what they are at.
///
/// # Errors
/// Of the connection when it cannot be kept up, of a task, or whatever `store` answers.
pub async fn run<T, S, F>(
    settings: &ConnectionSettings,
    tasks: Vec<T>,
    limits: Limits,
    store: S,
) -> Result<Progress>
where
    T: Task,
    S: Fn(T::Output) -> F,
    F: Future<Output = Result<()>>,
{
    let total = tasks.len();
    let shared = Shared {
        settings,
        queue: Mutex::new(tasks.into()),
        limits,
        begun: Instant::now(),
        failed: AtomicBool::new(false),
        done: AtomicUsize::new(0),
        store,
    };
    let workers = limits.connections.clamp(1, total.max(1));
    let results = join_all((0..workers).map(|_| async {
        let result = work(&shared).await;
        if result.is_err() {
            shared.failed.store(true, Ordering::Relaxed);
        }
        result
    }))
    .await;
    results.into_iter().collect::<Result<Vec<()>>>()?;
    let done = shared.done.load(Ordering::Relaxed);
    Ok(Progress { done, left: total - done })
}

impl<T: Task, S> Shared<'_, T, S> {
    fn take(&self) -> Option<T> {
        if self.failed.load(Ordering::Relaxed) {
            return None;
        }
        loop {
            let now = Instant::now();
            if now >= self.limits.stop_at {
                return None;
            }
            let mut queue = self.queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let task = queue.pop_front()?;
            if self.is_fresh(now) || now + task.estimate() <= self.limits.cut_at {
                return Some(task);
            }
        }
    }

    /// Whether nearly all of the time is still to come: what does not fit now fits never.
    fn is_fresh(&self, moment: Instant) -> bool {
        let window = self.limits.cut_at.saturating_duration_since(self.begun);
        moment.saturating_duration_since(self.begun) <= window / 10
    }
}

async fn work<T, S, F>(shared: &Shared<'_, T, S>) -> Result<()>
where
    T: Task,
    S: Fn(T::Output) -> F,
    F: Future<Output = Result<()>>,
{
    let mut session: Option<T::Connection> = None;
    while let Some(task) = shared.take() {
        let begun = Instant::now();
        let attempt =
            tokio::time::timeout_at(shared.limits.cut_at, persist(shared, &task, &mut session)).await;
        let output = if let Ok(output) = attempt {
            output?
        } else {
            session = None;
            if shared.is_fresh(begun) { task.expired(begun.elapsed()) } else { None }
        };
        if let Some(output) = output {
            (shared.store)(output).await?;
            shared.done.fetch_add(1, Ordering::Relaxed);
        }
    }
    drop(session);
    Ok(())
}

/// Tries a task until it is done, fails for good, or there is no time for another attempt (`None`).
async fn persist<T: Task, S>(
    shared: &Shared<'_, T, S>,
    task: &T,
    session: &mut Option<T::Connection>,
) -> Result<Option<T::Output>> {
    let mut state = T::State::default();
    let mut incarnation: Option<String> = None;
    let mut failures = 0;
    loop {
        let error = match reach(shared.settings, task, session).await {
            Ok(reached) => {
                let now = reached.incarnation().to_owned();
                let crashed = incarnation.as_ref().is_some_and(|before| *before != now);
                if crashed {
                    // It came back, so that is not a failure in a row any more. A task ends after two crashes.
                    failures = 0;
                }
                incarnation = Some(now);
                match task.run(reached, &mut state, crashed).await {
                    Ok(output) => return Ok(Some(output)),
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        if session.as_ref().is_some_and(Connection::is_closed) || !is_passing(&error) {
            *session = None;
        }
        if !is_passing(&error) {
            return Err(error);
        }
        let recovering = T::Connection::is_recovering(&error);
        if !recovering {
            failures += 1;
        }
        if failures >= ATTEMPTS {
            return Err(error);
        }
        tracing::info!(error = %error.name(), attempt = failures, "a connection failed; trying again");
        let pause = FIRST_PAUSE * 2u32.pow(failures.saturating_sub(1));
        if Instant::now() + pause >= shared.limits.stop_at {
            // An outage that lasted to the end is told; one failure right before the end is not worth it.
            return if failures > 2 { Err(error) } else { Ok(None) };
        }
        tokio::time::sleep(pause).await;
    }
}

/// An open session to the task's database, the old one if it will do.
async fn reach<'s, T: Task>(
    settings: &ConnectionSettings,
    task: &T,
    session: &'s mut Option<T::Connection>,
) -> Result<&'s T::Connection> {
    let fits =
        session.as_ref().is_some_and(|session| !session.is_closed() && session.serves(task.database()));
    let open = match session.take() {
        Some(open) if fits => open,
        _ => T::Connection::open(&settings.for_database(task.database()), task.access()).await?,
    };
    Ok(session.insert(open))
}
