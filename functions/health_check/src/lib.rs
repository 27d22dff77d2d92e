//! `health_check`: looks at everything that a recovery would stand on, judges it, and tells people what changed.
//!
//! It changes no database, no snapshot and no operation. What it remembers (one item of the state table) and whom it
//! tells is decided by `dr_core::health`; the same check twice tells nobody anything new.

mod answer;
mod config;
mod request;
mod survey;

use dr_aws::clients::Clients;
use dr_aws::metrics;
use dr_aws::objects::Overwrite;
use dr_aws::state::{Applied, StateTable};
use dr_core::health::alerts::{self, Health, Recorded};
use dr_core::health::{Assessment, Component, Expected, Scope, State, assess};
use dr_core::{DrError, ErrorName, Result};
use jiff::{SignedDuration, Timestamp};

pub use answer::{Alerted, Answer, Counts, MOST_FINDINGS, MOST_RECOVERABLE};
pub use config::{Config, Topics};
pub use request::Check;

use answer::Report;

/// How often a change is decided again when somebody else wrote in between.
const MOST_ATTEMPTS: u32 = 5;
/// Longer than the function can live (300 s): a message that is older belongs to a check that died.
const DELIVERY_LEASE: SignedDuration = SignedDuration::from_secs(360);

/// What the function works with.
#[derive(Debug)]
pub struct Handler {
    /// The clients.
    pub clients: Clients,
    /// The configuration.
    pub config: Config,
}

impl Handler {
    /// Looks, judges, tells. `request_id` tells the reports of one second apart.
    ///
    /// # Errors
    /// [`ErrorName::RegionUnknown`]; [`ErrorName::StateConflict`] after five lost races; the errors of the calls that
    /// remember, tell and report. A look that failed is a finding, not an error.
    pub async fn handle(&self, check: Check, now: Timestamp, request_id: &str) -> Result<Answer> {
        let expected = self.expected(&check)?;
        let seen = survey::look(&self.clients, &self.config, &expected, now).await;
        let assessment = assess(&expected, &seen, now);
        if expected.scope == Scope::All {
            count(&assessment);
        }
        // People are told first: a report that cannot be written must not keep it from them.
        let alert =
            if check.alert { Some(self.tell(&assessment, &expected.scope, now).await?) } else { None };
        let report = self.report(&assessment, &expected.scope, now, request_id).await?;
        Ok(Answer::new(&assessment, &expected.scope, now, report, alert))
    }

    fn expected(&self, check: &Check) -> Result<Expected> {
        let home = self.clients.home().clone();
        if let Some(region) = check.region.as_ref().filter(|region| **region != home)
            && !self.config.target_regions.contains(region)
        {
            let text = format!("checking the health of {region}");
            return Err(DrError::new(ErrorName::RegionUnknown, text));
        }
        Ok(Expected {
            home,
            targets: self.config.target_regions.clone(),
            databases: self.config.databases.iter().map(ToString::to_string).collect(),
            scope: check.scope(),
            thresholds: self.config.thresholds.clone(),
        })
    }

    /// Writes down what changed, publishes what is due, and writes down that it was.
    async fn tell(&self, assessment: &Assessment, scope: &Scope, now: Timestamp) -> Result<Alerted> {
        let table = StateTable::new(self.clients.dynamodb(), &self.config.table);
        let recorded = self.record(&table, assessment, scope, now).await?;
        let (mut published, mut failed, mut trouble) = (Vec::new(), Vec::new(), None);
        let topics = self.clients.topics();
        for message in &recorded.deliver {
            let topic = self.config.topics.of(message.severity);
            match Box::pin(topics.publish(topic, &message.subject, &message.text)).await {
                Ok(()) => published.push(message.id.clone()),
                Err(error) => {
                    failed.push(message.id.clone());
                    trouble = Some(error);
                }
            }
        }
        if !recorded.deliver.is_empty() {
            self.mark(&table, &published, &failed, now).await?;
        }
        trouble.map_or_else(|| Ok(Alerted::new(&recorded)), Err)
    }

    async fn record(
        &self,
        table: &StateTable,
        assessment: &Assessment,
        scope: &Scope,
        now: Timestamp,
    ) -> Result<Recorded> {
        for _ in 0..MOST_ATTEMPTS {
            let existing: Option<Health> = table.read(Health::KEY).await?;
            let recorded = alerts::record(existing.as_ref(), assessment, scope, now, now, DELIVERY_LEASE);
            let applied = match &recorded.change {
                Some(change) => table.apply(change).await?,
                None => Applied::Yes,
            };
            if applied == Applied::Yes {
                return Ok(recorded);
            }
        }
        Err(self.lost("remembering the state of health"))
    }

    async fn mark(
        &self,
        table: &StateTable,
        published: &[String],
        failed: &[String],
        now: Timestamp,
    ) -> Result<()> {
        for _ in 0..MOST_ATTEMPTS {
            let Some(existing) = table.read::<Health>(Health::KEY).await? else { return Ok(()) };
            let Some(change) = alerts::delivered(&existing, published, failed, now) else { return Ok(()) };
            if table.apply(&change).await? == Applied::Yes {
                return Ok(());
            }
        }
        Err(self.lost("remembering that people were told"))
    }

    fn lost(&self, what: &str) -> DrError {
        let text = format!("{what} in table {}: lost five races", self.config.table);
        DrError::new(ErrorName::StateConflict, text)
    }

    async fn report(
        &self,
        assessment: &Assessment,
        scope: &Scope,
        now: Timestamp,
        request_id: &str,
    ) -> Result<String> {
        let report = Report {
            status: assessment.state,
            scope: scope.describe(),
            checked_at: now,
            counts: Counts::new(assessment),
            components: &assessment.components,
            findings: &assessment.findings,
            if_home_died: &assessment.recoverable,
        };
        let key = format!("health/{}-{}.json", now.strftime("%Y-%m-%d/%H-%M-%SZ"), request_id);
        let body = serde_json::to_vec_pretty(&report).map_err(|error| {
            DrError::new(ErrorName::Internal, "writing the health report as JSON").with_source(error)
        })?;
        let bucket = self.clients.bucket(&self.config.bucket);
        Box::pin(bucket.put(&key, body, "application/json", Overwrite::Allowed)).await?;
        Ok(key)
    }
}

/// Metrics of a look at everything: the worst of each kind. Where nothing was seen, nothing is said.
fn count(assessment: &Assessment) {
    for component in Component::ALL {
        if let Some(state) = assessment.components.get(component) {
            metrics::health(component.as_str(), state.value());
        }
    }
    metrics::health("system", assessment.state.value());
    let gauges = &assessment.gauges;
    for (region, seconds) in &gauges.backup_age_seconds {
        metrics::regional_value(metrics::BACKUP_AGE_SECONDS, region, *seconds);
    }
    for ((source, target), seconds) in &gauges.lag_seconds {
        metrics::lag(source, target, *seconds);
    }
    for (region, percent) in &gauges.storage_percent {
        metrics::regional_value(metrics::STORAGE_USED_PERCENT, region, *percent);
    }
    if let Some(seconds) = gauges.rpo_seconds {
        metrics::value(metrics::RPO_IF_REGION_DIED_SECONDS, "health_check", seconds);
    }
    let unhealthy = assessment.state == State::Failed;
    tracing::info!(
        state = assessment.state.as_str(),
        findings = assessment.findings.len(),
        unhealthy,
        "looked at everything: {}, {} findings",
        assessment.state.as_str(),
        assessment.findings.len()
    );
}
