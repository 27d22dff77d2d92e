//! A server at work on a cluster.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio_postgres::Config;

use super::cluster::{Cluster, SUPERUSER};
use super::damage::Relation;
use super::roles;
use super::sql;
use crate::host::MasterUser;
use crate::host::Rows;
use crate::host::error::{Error, IoContext};
use crate::host::process::{self, Frozen};
use crate::host::{account, files, keeper};

/// The longest path of a Unix socket, less the name that PostgreSQL gives it.
const SOCKET_DIR_LIMIT: usize = 107 - "/.s.PGSQL.65535.lock".len();
/// The number in the socket's name when there is no TCP port.
const SOCKET_PORT: u16 = 5432;
/// How long a stop may take before the server is killed.
const STOP_LIMIT: Duration = Duration::from_mins(1);

/// How to start a server.
#[derive(Debug, Clone)]
pub struct StartOptions {
    /// Settings that override everything else, like `-c name=value`.
    pub settings: Vec<(String, String)>,
    /// Also listen on 127.0.0.1; by default there is the Unix socket only.
    pub tcp: Option<TcpOptions>,
    /// How long start and crash recovery may take.
    pub limit: Duration,
}

impl Default for StartOptions {
    fn default() -> Self {
        Self { settings: Vec::new(), tcp: None, limit: Duration::from_mins(2) }
    }
}

/// A TLS listener on 127.0.0.1 that behaves like an RDS endpoint with `rds.force_ssl`: plaintext is refused, users
/// log in with SCRAM, the superuser not at all.
#[derive(Debug, Clone)]
pub struct TcpOptions {
    /// The port.
    pub port: u16,
    /// The server's certificate, PEM.
    pub certificate: String,
    /// Its private key, PEM.
    pub key: String,
}

/// How to stop a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// Disconnects clients, checkpoints, leaves a clean data directory.
    Fast,
    /// Ends at once without checkpoint, like a crash; the next start recovers from WAL.
    Immediate,
}

/// A running server. Dropping it stops the server as a crash would.
#[derive(Debug)]
pub struct Running {
    cluster: Cluster,
    child: Child,
    socket_dir: PathBuf,
    short_socket_dir: Option<TempDir>,
    port: u16,
}

impl Running {
    pub(super) fn start(cluster: &Cluster, options: &StartOptions) -> Result<Self, Error> {
        let (socket_dir, short_socket_dir) = make_socket_dir(cluster.dir())?;
        let data = cluster.data_dir();
        // A crash leaves it behind; its process id may be somebody else's by now.
        let lock = data.join("postmaster.pid");
        match fs::remove_file(&lock) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).doing("removing", &lock);
            }
            _ => {}
        }
        let port = options.tcp.as_ref().map_or(SOCKET_PORT, |tcp| tcp.port);
        let mut command = account::command(&cluster.toolchain().program("postgres"));
        command.arg("-D").arg(&data).arg("-k").arg(&socket_dir).arg("-p").arg(port.to_string());
        for (name, value) in settings(cluster, options)? {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let log_file = cluster.log_file();
        let log = OpenOptions::new().create(true).append(true).open(&log_file).doing("opening", &log_file)?;
        let log_again = log.try_clone().doing("opening", &log_file)?;
        command.stdin(std::process::Stdio::null()).stdout(log).stderr(log_again);
        let child = keeper::spawn(command, &data).doing("starting a server in", cluster.dir())?;
        let mut running = Self { cluster: cluster.clone(), child, socket_dir, short_socket_dir, port };
        running.wait_until_ready(options.limit)?;
        Ok(running)
    }

    /// The postmaster writes its state into the eighth line of its lock file.
    fn wait_until_ready(&mut self, limit: Duration) -> Result<(), Error> {
        let begun = Instant::now();
        let lock = self.cluster.data_dir().join("postmaster.pid");
        loop {
            let state = fs::read_to_string(&lock).unwrap_or_default();
            if matches!(state.lines().nth(7).map(str::trim), Some("ready" | "standby")) {
                return Ok(());
            }
            let reason = match self.child.try_wait().doing("waiting for the server in", self.cluster.dir())? {
                Some(status) => format!("ended with {status}"),
                None if begun.elapsed() > limit => format!("not ready within {} s", limit.as_secs()),
                None => {
                    thread::sleep(Duration::from_millis(5));
                    continue;
                }
            };
            return Err(Error::Start {
                dir: self.cluster.dir().to_owned(),
                reason,
                log: log_tail(&self.cluster.log_file()),
            });
        }
    }

    /// The stopped cluster's view of it: directory, toolchain, log.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The directory of its Unix socket, where the superuser needs no password.
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// Its TCP port, or the number in its socket's name.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The postmaster's process id.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(i32::MAX)
    }

    /// The process ids of the postmaster and everything it started.
    pub fn pids(&self) -> Vec<i32> {
        process::family(self.pid()).into_iter().collect()
    }

    /// A connection URL for the superuser over the Unix socket, understood by libpq and tokio-postgres.
    pub fn url(&self, database: &str) -> String {
        self.url_as(SUPERUSER, database)
    }

    /// The same for any role: over the socket every role is trusted.
    pub fn url_as(&self, user: &str, database: &str) -> String {
        let host: String = self
            .socket_dir
            .as_os_str()
            .as_bytes()
            .iter()
            .map(|&byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            })
            .collect();
        format!("postgresql://{user}@{host}:{}/{database}", self.port)
    }

    /// Runs statements as the superuser and returns all their rows as text. Several statements in one text are one
    /// implicit transaction.
    pub fn sql(&self, database: &str, statements: &str) -> Result<Rows, Error> {
        self.sql_as(SUPERUSER, database, statements)
    }

    /// The same as any role.
    pub fn sql_as(&self, user: &str, database: &str, statements: &str) -> Result<Rows, Error> {
        let mut config = Config::new();
        config.host_path(&self.socket_dir).port(self.port).user(user).dbname(database);
        config.connect_timeout(Duration::from_secs(10));
        sql::run(&config, database, statements)
    }

    /// Creates the roles and rights of RDS in it.
    pub fn set_up_roles(&self, master: &MasterUser) -> Result<(), Error> {
        roles::set_up(self, master)
    }

    /// Sets a role's password.
    pub fn set_password(&self, role: &str, password: &str) -> Result<(), Error> {
        let statement =
            format!("ALTER ROLE {} PASSWORD {}", roles::identifier(role), roles::literal(password));
        self.sql("postgres", &statement).map(drop)
    }

    /// Where a table, index or TOAST table lives on disk. `name` is anything that `regclass` understands.
    pub fn relation(&self, database: &str, name: &str) -> Result<Relation, Error> {
        let query = format!("SELECT pg_relation_filepath({}::regclass)", roles::literal(name));
        let path = self.sql(database, &query)?.into_iter().flatten().flatten().next();
        let path = path.ok_or_else(|| Error::Damage {
            target: name.to_owned(),
            reason: "it has no file (a view or a partitioned parent)".into(),
        })?;
        Ok(Relation::new(database, name, &path))
    }

    /// Stops all processes of the server, copies its data directory to `to` and lets it go on: what a snapshot of
    /// the storage at one instant holds, crash-consistent and not clean. Clients notice a pause at most.
    pub fn freeze_and_copy(&self, to: &Path) -> Result<Cluster, Error> {
        self.freeze_and_copy_timed(to).map(|(copy, _)| copy)
    }

    /// The same, with the time at which everything stood still: nothing written later is in the copy.
    pub fn freeze_and_copy_timed(&self, to: &Path) -> Result<(Cluster, Timestamp), Error> {
        let cluster = self.cluster.clone().moved_to(to);
        account::private_dir(to)?;
        let frozen = Frozen::freeze(self.pid())?;
        let instant = Timestamp::now();
        let copied = files::copy_data(&self.cluster.data_dir(), &cluster.data_dir());
        drop(frozen);
        copied?;
        Ok((cluster, instant))
    }

    /// Stops it and waits for its end.
    pub fn stop(mut self, mode: StopMode) -> Result<Cluster, Error> {
        let signal = match mode {
            StopMode::Fast => Signal::SIGINT,
            StopMode::Immediate => Signal::SIGQUIT,
        };
        process::signal(self.pid(), signal);
        match self.wait(STOP_LIMIT) {
            Some(_) => Ok(self.cluster.clone()),
            // Dropping self kills it.
            None => {
                Err(Error::Stuck { pid: self.pid(), what: "it did not stop", seconds: STOP_LIMIT.as_secs() })
            }
        }
    }

    /// Whether the server has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let begun = Instant::now();
        while begun.elapsed() < limit {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) => thread::sleep(Duration::from_millis(2)),
                Err(_) => return None,
            }
        }
        None
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.has_ended() {
            return;
        }
        let family = process::family(self.pid());
        process::signal(self.pid(), Signal::SIGQUIT);
        if self.wait(Duration::from_secs(5)).is_none() {
            for pid in family {
                process::signal(pid, Signal::SIGKILL);
            }
            let _ = self.child.wait();
        }
        drop(self.short_socket_dir.take());
    }
}

/// A directory for the socket: beside the data, or a short temporary one where the path would be too long.
fn make_socket_dir(dir: &Path) -> Result<(PathBuf, Option<TempDir>), Error> {
    let beside = dir.join("socket");
    if beside.as_os_str().len() <= SOCKET_DIR_LIMIT {
        account::private_dir(&beside)?;
        return Ok((beside, None));
    }
    let temporary =
        tempfile::Builder::new().prefix("rdsl-").tempdir().doing("creating a socket directory for", dir)?;
    account::private_dir(temporary.path())?;
    Ok((temporary.path().to_owned(), Some(temporary)))
}

fn settings(cluster: &Cluster, options: &StartOptions) -> Result<Vec<(String, String)>, Error> {
    let hba_file = cluster.dir().join("pg_hba.conf");
    let mut access = String::from("local all all trust\n");
    let mut settings: Vec<(String, String)> = [
        // What is lost when the machine crashes does not matter here; what a snapshot holds must be as on RDS.
        ("fsync", "off"),
        ("full_page_writes", "on"),
        ("wal_level", "replica"),
        ("max_connections", "100"),
        ("shared_buffers", "128MB"),
        // Segments in the data directory go away with it, even when everything is killed.
        ("dynamic_shared_memory_type", "mmap"),
        ("password_encryption", "scram-sha-256"),
        ("timezone", "UTC"),
        ("log_timezone", "UTC"),
        ("logging_collector", "off"),
        ("log_line_prefix", "%m [%p] %u@%d "),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec();
    let mut set = |name: &str, value: String| settings.push((name.to_owned(), value));
    match &options.tcp {
        None => set("listen_addresses", String::new()),
        Some(tcp) => {
            let (certificate, key) = (cluster.dir().join("server.crt"), cluster.dir().join("server.key"));
            account::private_file(&certificate, &tcp.certificate)?;
            account::private_file(&key, &tcp.key)?;
            set("listen_addresses", "127.0.0.1".into());
            set("ssl", "on".into());
            set("ssl_cert_file", certificate.display().to_string());
            set("ssl_key_file", key.display().to_string());
            access.push_str("hostssl all rdsadmin 127.0.0.1/32 reject\n");
            access.push_str("hostssl rdsadmin all 127.0.0.1/32 reject\n");
            access.push_str("hostssl all all 127.0.0.1/32 scram-sha-256\n");
        }
    }
    account::private_file(&hba_file, &access)?;
    set("hba_file", hba_file.display().to_string());
    settings.extend(options.settings.iter().cloned());
    Ok(settings)
}

/// The last lines of a log.
fn log_tail(path: &Path) -> String {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
