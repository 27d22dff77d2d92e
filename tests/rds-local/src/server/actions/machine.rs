//! Brings an instance's server up and down behind its endpoint. Whoever calls holds the machine's lock.

use std::path::PathBuf;
use std::sync::Arc;

use crate::server::cloud::{Cloud, blocking};
use crate::server::model::{Machine, Settings};
use crate::server::proxy::{Endpoint, free_port};

/// Starts the server and opens the endpoint; returns the endpoint's port.
pub(super) async fn bring_up(
    cloud: &Arc<Cloud>,
    machine: &mut Machine,
    settings: &Settings,
    dir: PathBuf,
) -> Result<u16, String> {
    let backend = start_server(cloud, machine, settings, dir).await?;
    open(machine, backend).await
}

/// Starts the server, with nobody led to it yet; returns its own port.
async fn start_server(
    cloud: &Arc<Cloud>,
    machine: &mut Machine,
    settings: &Settings,
    dir: PathBuf,
) -> Result<u16, String> {
    let engine = cloud.engine(&settings.engine).map_err(|fault| fault.message)?;
    let backend = free_port().await.map_err(|error| error.to_string())?;
    let (authority, version) = (cloud.authority.clone(), settings.version.clone());
    let server = blocking(move || engine.start(&version, &dir, backend, &authority)).await?;
    machine.server = Some(server);
    machine.backend = Some(backend);
    Ok(backend)
}

/// Starts the server behind an endpoint that stays closed; returns the endpoint's port.
pub(super) async fn bring_up_closed(
    cloud: &Arc<Cloud>,
    machine: &mut Machine,
    settings: &Settings,
    dir: PathBuf,
) -> Result<u16, String> {
    start_server(cloud, machine, settings, dir).await?;
    endpoint_of(machine).await.map(|endpoint| endpoint.port())
}

/// Opens the endpoint to a server; returns the endpoint's port.
pub(super) async fn open(machine: &mut Machine, backend: u16) -> Result<u16, String> {
    let endpoint = endpoint_of(machine).await?;
    endpoint.open(backend).await.map_err(|error| error.to_string())?;
    Ok(endpoint.port())
}

async fn endpoint_of(machine: &mut Machine) -> Result<&mut Endpoint, String> {
    if machine.endpoint.is_none() {
        machine.endpoint = Some(Endpoint::new().await.map_err(|error| error.to_string())?);
    }
    machine.endpoint.as_mut().ok_or_else(|| "there is no endpoint".to_owned())
}

/// How a server comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It writes everything to its files.
    Clean,
    /// As in a failure: what was committed is in its log.
    Crash,
}

/// Closes the endpoint and cuts who is connected.
pub(super) fn close(machine: &mut Machine) {
    if let Some(endpoint) = machine.endpoint.as_mut() {
        endpoint.close();
    }
}

/// Closes the endpoint and ends the server.
pub(super) async fn bring_down(machine: &mut Machine, end: End) -> Result<(), String> {
    close(machine);
    machine.backend = None;
    let Some(server) = machine.server.take() else { return Ok(()) };
    blocking(move || match end {
        End::Clean => server.stop(),
        End::Crash => server.crash(),
    })
    .await
}

/// Removes a directory of an instance or a snapshot; one that is not there is fine.
pub(super) async fn remove(dir: PathBuf) {
    match tokio::fs::remove_dir_all(&dir).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::error!(dir = %dir.display(), %error, "cannot remove a directory");
        }
        _ => {}
    }
}
