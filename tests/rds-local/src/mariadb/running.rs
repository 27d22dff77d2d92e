//! A server at work.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::files::{Files, SUPERUSER};
use super::installation::COMMON;
use super::sql;
use crate::host::error::{Error, IoContext};
use crate::host::process::{self, Frozen};
use crate::host::{MasterUser, Rows, account, files, keeper};

/// The longest path of a Unix socket.
const SOCKET_LIMIT: usize = 107;
/// How long a stop may take before the server is killed.
const STOP_LIMIT: Duration = Duration::from_mins(1);

/// How to start a server.
#[derive(Debug, Clone)]
pub struct StartOptions {
    /// Settings that override everything else, like `--name=value`.
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

/// A TLS listener on 127.0.0.1 that behaves like an RDS endpoint with `require_secure_transport`: plaintext is refused,
/// and the superuser is not let in.
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
    /// Writes everything to its files and ends.
    Fast,
    /// Ends at once, like a crash; the next start recovers from the redo log.
    Immediate,
}

/// A running server. Dropping it stops the server as a crash would.
#[derive(Debug)]
pub struct Running {
    files: Files,
    child: Child,
    socket: PathBuf,
    short_socket_dir: Option<TempDir>,
    port: u16,
}

impl Running {
    pub(super) fn start(files: &Files, options: &StartOptions, user: &str) -> Result<Self, Error> {
        let (socket, short_socket_dir) = socket_path(files.dir())?;
        let data = files.data_dir();
        // A server that starts removes the temporary tables of all others that use the same directory.
        let temporary = files.dir().join("tmp");
        account::private_dir(&temporary)?;
        // A crash leaves them behind.
        let pid_file = data.join("mariadbd.pid");
        for stale in [&pid_file, &socket] {
            match fs::remove_file(stale) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).doing("removing", stale);
                }
                _ => {}
            }
        }
        let mut command = account::command(&files.installation().server());
        command
            .arg("--no-defaults")
            .arg(format!("--basedir={}", files.installation().root().display()))
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}", socket.display()))
            .arg(format!("--pid-file={}", pid_file.display()))
            .arg(format!("--tmpdir={}", temporary.display()))
            .args(COMMON)
            .args([
                "--innodb-buffer-pool-size=64M",
                "--innodb-buffer-pool-load-at-startup=OFF",
                "--character-set-server=utf8mb4",
                "--default-time-zone=+00:00",
                "--max-connections=100",
            ]);
        let port = options.tcp.as_ref().map_or(0, |tcp| tcp.port);
        match &options.tcp {
            None => {
                command.arg("--skip-networking");
            }
            Some(tcp) => {
                let (certificate, key) = (files.dir().join("server.crt"), files.dir().join("server.key"));
                account::private_file(&certificate, &tcp.certificate)?;
                account::private_file(&key, &tcp.key)?;
                command
                    .args(["--bind-address=127.0.0.1", "--require-secure-transport=ON"])
                    .arg(format!("--port={port}"))
                    .arg(format!("--ssl-cert={}", certificate.display()))
                    .arg(format!("--ssl-key={}", key.display()));
            }
        }
        for (name, value) in &options.settings {
            command.arg(format!("--{name}={value}"));
        }
        let log_file = files.log_file();
        let log = OpenOptions::new().create(true).append(true).open(&log_file).doing("opening", &log_file)?;
        let log_again = log.try_clone().doing("opening", &log_file)?;
        command.stdin(Stdio::null()).stdout(log).stderr(log_again);
        let child = keeper::spawn(command, &data).doing("starting a server in", files.dir())?;
        let mut running = Self { files: files.clone(), child, socket, short_socket_dir, port };
        running.wait_until_ready(options.limit, user)?;
        Ok(running)
    }

    /// The socket answers with a greeting once recovery is done.
    fn wait_until_ready(&mut self, limit: Duration, user: &str) -> Result<(), Error> {
        let begun = Instant::now();
        loop {
            if greets(&self.socket) && self.sql_as(user, "mysql", "SELECT 1").is_ok() {
                return Ok(());
            }
            let reason = match self.child.try_wait().doing("waiting for the server in", self.files.dir())? {
                Some(status) => format!("ended with {status}"),
                None if begun.elapsed() > limit => format!("not ready within {} s", limit.as_secs()),
                None => {
                    thread::sleep(Duration::from_millis(10));
                    continue;
                }
            };
            return Err(Error::Start {
                dir: self.files.dir().to_owned(),
                reason,
                log: log_tail(&self.files.log_file()),
            });
        }
    }

    /// The stopped server's view of it: directory, installation, log.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Its Unix socket, where the superuser needs no password.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its TCP port; 0 without one.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(i32::MAX)
    }

    /// The process ids of the server and everything it started.
    pub fn pids(&self) -> Vec<i32> {
        process::family(self.pid()).into_iter().collect()
    }

    /// Runs statements, separated by semicolons, as the superuser and returns all their rows as text.
    pub fn sql(&self, database: &str, statements: &str) -> Result<Rows, Error> {
        self.sql_as(SUPERUSER, database, statements)
    }

    pub(super) fn sql_as(&self, user: &str, database: &str, statements: &str) -> Result<Rows, Error> {
        sql::run(&self.socket, user, database, statements)
    }

    /// Creates a master user with the rights that RDS gives it, and its database.
    pub fn set_up_master(&self, master: &MasterUser) -> Result<(), Error> {
        // As listed in RDS's documentation of master user privileges for MariaDB; no SUPER, no FILE, no SHUTDOWN.
        const RIGHTS: &str = "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, RELOAD, PROCESS, REFERENCES, INDEX, ALTER, \
            SHOW DATABASES, CREATE TEMPORARY TABLES, LOCK TABLES, EXECUTE, REPLICATION CLIENT, CREATE VIEW, SHOW VIEW, \
            CREATE ROUTINE, ALTER ROUTINE, CREATE USER, EVENT, TRIGGER, REPLICATION SLAVE";
        let (name, password) = (sql::literal(&master.name), sql::literal(&master.password));
        self.sql(
            "mysql",
            &format!(
                "CREATE USER {name}@'%' IDENTIFIED BY {password}; \
                 GRANT {RIGHTS} ON *.* TO {name}@'%' WITH GRANT OPTION"
            ),
        )?;
        if let Some(database) = &master.database {
            self.sql("mysql", &format!("CREATE DATABASE {}", sql::identifier(database)))?;
        }
        Ok(())
    }

    /// Sets a user's password.
    pub fn set_password(&self, user: &str, password: &str) -> Result<(), Error> {
        let statement =
            format!("ALTER USER {}@'%' IDENTIFIED BY {}", sql::literal(user), sql::literal(password));
        self.sql("mysql", &statement).map(drop)
    }

    /// The end of the redo log: what is committed from now on comes after it.
    pub fn log_sequence_number(&self) -> Result<u64, Error> {
        let rows = self.sql(
            "mysql",
            "SELECT variable_value FROM information_schema.global_status WHERE variable_name = 'INNODB_LSN_CURRENT'",
        )?;
        let value = rows.into_iter().flatten().flatten().next().and_then(|text| text.parse().ok());
        value.ok_or_else(|| Error::Damage { target: "the redo log".into(), reason: "no position".into() })
    }

    /// Stops the server's process, copies its files to `to` and lets it go on: what a snapshot of the storage at one
    /// instant holds, crash-consistent and not clean. Clients notice a pause at most.
    pub fn freeze_and_copy(&self, to: &Path) -> Result<Files, Error> {
        self.freeze_and_copy_timed(to).map(|(copy, _)| copy)
    }

    /// The same, with the time at which everything stood still: nothing written later is in the copy.
    pub fn freeze_and_copy_timed(&self, to: &Path) -> Result<(Files, Timestamp), Error> {
        let copy = self.files.clone().moved_to(to);
        account::private_dir(to)?;
        let frozen = Frozen::freeze(self.pid())?;
        let instant = Timestamp::now();
        let copied = files::copy_data(&self.files.data_dir(), &copy.data_dir());
        drop(frozen);
        copied?;
        Ok((copy, instant))
    }

    /// Stops it and waits for its end.
    pub fn stop(mut self, mode: StopMode) -> Result<Files, Error> {
        let signal = match mode {
            StopMode::Fast => Signal::SIGTERM,
            StopMode::Immediate => Signal::SIGKILL,
        };
        process::signal(self.pid(), signal);
        match self.wait(STOP_LIMIT) {
            Some(_) => Ok(self.files.clone()),
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
                Ok(None) => thread::sleep(Duration::from_millis(5)),
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
        process::signal(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
        drop(self.short_socket_dir.take());
    }
}

/// Whether a server says its greeting on a socket.
fn greets(socket: &Path) -> bool {
    let Ok(mut stream) = UnixStream::connect(socket) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    stream.read_exact(&mut [0; 5]).is_ok()
}

/// The socket: beside the data, or in a short temporary directory where the path would be too long.
fn socket_path(dir: &Path) -> Result<(PathBuf, Option<TempDir>), Error> {
    let beside = dir.join("socket");
    let socket = beside.join("s");
    if socket.as_os_str().len() <= SOCKET_LIMIT {
        account::private_dir(&beside)?;
        return Ok((socket, None));
    }
    let temporary =
        tempfile::Builder::new().prefix("rdsl-").tempdir().doing("creating a socket directory for", dir)?;
    account::private_dir(temporary.path())?;
    Ok((temporary.path().join("s"), Some(temporary)))
}

/// The last lines of a log.
fn log_tail(path: &Path) -> String {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
