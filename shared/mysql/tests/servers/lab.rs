//! A source, a snapshot of it, and the road from frame to judgement, without AWS.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use dr_core::Result;
use dr_core::proof::examination::Examination;
use dr_core::proof::frame::{Frame, FramePlan, Heartbeat, Observation, TableFacts, Unit, UnitResult};
use dr_core::proof::judge::{Input, judge};
use dr_core::proof::judgement::{Report, RestoreFacts, TableJudgement};
use dr_core::proof::keyed::units_to_repeat;
use dr_core::{EngineFamily, proof};
use dr_database::{Access, ConnectionSettings, Limits, Security, Wishes};
use dr_mysql::{Session, catalogue, checks, examine, frame, heartbeat, read_units};
use jiff::Timestamp;
use rds_local::mariadb::{Files, FilesOptions, Installation, Running, SUPERUSER, StartOptions};

/// Small units, so that small tables have several slices.
pub(crate) const UNIT_BYTES: u64 = 128 << 10;

pub(crate) fn source(dir: &Path, settings: &[(&str, &str)]) -> Running {
    let files =
        Files::create(&Installation::find().unwrap(), &dir.join("source"), &FilesOptions::default()).unwrap();
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    files.start(&StartOptions { settings, ..StartOptions::default() }).unwrap()
}

pub(crate) fn settings(server: &Running) -> ConnectionSettings {
    let security = Security::LocalSocket(server.socket().to_owned());
    ConnectionSettings::new("localhost", server.port(), SUPERUSER, None, "", security)
        .speaking(EngineFamily::MySql)
}

pub(crate) async fn session(server: &Running) -> Session {
    Session::open(&settings(server), Access::ReadOnly).await.unwrap()
}

pub(crate) fn limits() -> Limits {
    Limits::lasting(2, Duration::from_secs(100), Duration::from_secs(10))
}

pub(crate) async fn read(server: &Running, tables: &[TableFacts], units: Vec<Unit>) -> Vec<UnitResult> {
    let (results, total) = (Mutex::new(Vec::new()), units.len());
    let progress = read_units(&settings(server), tables, units, limits(), None, async |result| {
        results.lock().unwrap().push(result);
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!((progress.done, progress.left), (total, 0));
    results.into_inner().unwrap()
}

/// A source that was framed.
pub(crate) struct Framed {
    pub(crate) frame: Frame,
    pub(crate) observation: Option<Observation>,
    pub(crate) again: Vec<UnitResult>,
}

pub(crate) async fn plan(server: &Running) -> FramePlan {
    frame::plan(&settings(server), "db", "backup-1", UNIT_BYTES, None).await.unwrap()
}

pub(crate) async fn frame_of(server: &Running) -> Framed {
    let beat: Heartbeat = heartbeat::beat(&settings(server), "backup-1").await.unwrap();
    assert!(beat.beat >= 1);
    let plan = plan(server).await;
    let units = read(server, &plan.tables, plan.units.clone()).await;
    let heartbeat = heartbeat::beat(&settings(server), "backup-1").await.unwrap();
    Framed { frame: Frame { plan, heartbeat, units }, observation: None, again: Vec::new() }
}

impl Framed {
    /// Looks at the source again, after a snapshot that was taken long enough ago.
    pub(crate) async fn observe(&mut self, server: &Running) {
        let long_ago = Timestamp::now() - Duration::from_mins(1);
        let observed = frame::observe(&settings(server), "backup-1", long_ago).await.unwrap();
        let frame::Observed::Done(observation) = observed else { panic!("{observed:?}") };
        let units = units_to_repeat(&self.frame.plan, observation.state.as_ref().unwrap());
        let units = units.into_iter().cloned().collect();
        self.again = read(server, &self.frame.plan.tables, units).await;
        self.observation = Some(*observation);
    }

    pub(crate) async fn examine(&self, restore: &Running) -> Result<Report> {
        let settings = settings(restore);
        let wishes = Wishes { foreign_keys: true, unique_constraints: true, unit_bytes: UNIT_BYTES };
        let plan = examine::plan(&settings, "proof-1", Some(&self.frame.plan), wishes).await?;
        let units = Mutex::new(Vec::new());
        read_units(&settings, &plan.tables, plan.units.clone(), limits(), None, async |result| {
            units.lock().unwrap().push(result);
            Ok(())
        })
        .await?;
        let made = Mutex::new(Vec::new());
        checks::run_checks(&settings, plan.checks.clone(), limits(), async |result| {
            made.lock().unwrap().push(result);
            Ok(())
        })
        .await?;
        let examination = Examination {
            plan,
            units: units.into_inner().unwrap(),
            checks: made.into_inner().unwrap(),
            catalogue: catalogue::findings::catalogue(&settings, Some(&self.frame.heartbeat)).await?,
            narrowings: Vec::new(),
        };
        judge(&Input {
            operation_id: "proof-1",
            snapshot_id: "s",
            database: Some("db"),
            frame: Some(&self.frame),
            observation: self.observation.as_ref(),
            again: &self.again,
            earlier: dr_core::proof::judge::Earlier::None,
            examination: &examination,
            snapshot_taken_at: None,
            max_rpo_seconds: None,
            restore: &RestoreFacts::default(),
            now: Timestamp::now(),
            report_key: "report.json",
        })
    }
}

pub(crate) fn table<'r>(report: &'r Report, name: &str) -> &'r TableJudgement {
    report.tables.iter().find(|table| table.name.table == name).unwrap()
}

pub(crate) fn errors(report: &Report) -> Vec<String> {
    report
        .findings
        .iter()
        .filter(|finding| finding.severity == proof::judgement::Severity::Error)
        .map(|finding| format!("{}: {}", finding.subject, finding.message))
        .collect()
}
