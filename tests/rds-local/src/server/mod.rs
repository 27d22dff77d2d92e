//! The RDS query API (version 2014-10-31) over real servers.
//!
//! Instances, clusters, snapshots, copies and restores are files and processes; statuses pass in configurable time.
//! Replicas, point-in-time restores, automated backups and exports are not here yet. State lives in memory: it ends
//! with the process. No request signature is checked; the Region comes from the credential scope.

mod actions;
mod aws;
mod cloud;
mod control;
mod damage;
mod engine;
mod fault;
mod faults;
mod hollow;
mod http;
mod ids;
mod model;
mod options;
mod params;
mod proxy;
mod render;
mod shelf;
mod tls;
mod xml;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use cloud::{Cloud, Config, chain};
use http::{CuttableListener, Cutter};

pub use options::{Options, USAGE};

/// A file that says that a directory is ours to clear.
const MARKER: &str = ".rds-local";

/// Runs until SIGTERM or SIGINT, then stops every server. The error is for the user.
pub async fn run(options: Options) -> Result<(), String> {
    let (data, _lock) = prepare(&options.data)
        .map_err(|error| format!("--data {}: {}", options.data.display(), chain(&error)))?;
    let access_key = std::env::var("AWS_ACCESS_KEY_ID").unwrap_or_else(|_| "test".to_owned());
    let aws =
        options.aws_endpoint.as_deref().map(|endpoint| aws::Aws::new(endpoint, &access_key)).transpose()?;
    let authority = tls::Authority::new().map_err(|error| format!("cannot make certificates: {error}"))?;
    let ca_file = data.join("ca.pem");
    write_atomically(&ca_file, &authority.ca).map_err(|error| format!("{}: {error}", ca_file.display()))?;
    let config = Config { status_ms: options.status_ms, ..Config::default() };
    let postgres = engine::Postgres::new(options.toolchains);
    let mariadb = options.mariadb.map(engine::MariaDb::new);
    let cloud =
        Arc::new(Cloud::new(options.account, data.clone(), postgres, mariadb, authority, aws, config));
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;

    let listener = TcpListener::bind(options.listen)
        .await
        .map_err(|error| format!("--listen {}: {error}", options.listen))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let url = format!("http://{address}");
    let endpoint = json!({"url": url, "pid": std::process::id(), "caFile": ca_file});
    let endpoint_file = data.join("endpoint.json");
    write_atomically(&endpoint_file, &endpoint.to_string())
        .map_err(|error| format!("{}: {error}", endpoint_file.display()))?;
    tracing::info!(url, "ready");

    let service = http::router(Arc::clone(&cloud)).into_make_service_with_connect_info::<Cutter>();
    let serving = axum::serve(CuttableListener(listener), service);
    let ended = tokio::select! {
        ended = serving => ended.map_err(|error| error.to_string()),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    tracing::info!("stopping");
    let _ = fs::remove_file(&endpoint_file);
    actions::stop_everything(&cloud).await;
    ended
}

/// Makes the directory ready: absolute, marked as ours, without what an earlier run left. Nobody else uses it as long
/// as the file returned is open.
fn prepare(data: &Path) -> io::Result<(PathBuf, File)> {
    fs::create_dir_all(data)?;
    let data = data.canonicalize()?;
    let marker = data.join(MARKER);
    if !marker.exists() {
        if let Some(foreign) = fs::read_dir(&data)?.next() {
            let name = foreign?.file_name();
            return Err(io::Error::other(format!("it holds something that is not ours: {}", name.display())));
        }
        fs::write(&marker, "This directory belongs to rds-local, which clears it when it starts.\n")?;
    }
    let lock = File::open(&marker)?;
    lock.try_lock().map_err(|_| io::Error::other("another rds-local is using it"))?;
    for file in ["endpoint.json", "ca.pem"] {
        absent_is_fine(fs::remove_file(data.join(file)))?;
    }
    absent_is_fine(fs::remove_dir_all(data.join("regions")))?;
    Ok((data, lock))
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn write_atomically(path: &Path, content: &str) -> io::Result<()> {
    let draft = path.with_extension("part");
    fs::write(&draft, content)?;
    fs::rename(&draft, path)
}
