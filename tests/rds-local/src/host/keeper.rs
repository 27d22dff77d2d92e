//! Sees to it that no server outlives this process, whichever way it ends.
//!
//! Two nets. Servers are spawned from one thread that lives as long as the process and carry a parent death signal,
//! which the kernel ties to the spawning *thread*. It reaches the postmaster only, and a server that is frozen for a
//! snapshot has stopped children that nobody would ever wake; so a small shell also waits on a pipe for our end and
//! then kills everything that works inside one of the registered data directories.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

/// Reads data directories until the pipe's other end is gone; then kills what runs in them until nothing does.
const GUARD: &str = r#"
trap '' INT TERM HUP PIPE
list='|'
while IFS= read -r line; do list="$list$line|"; done
round=0
while [ $round -lt 100 ]; do
  found=
  for process in /proc/[0-9]*; do
    place=$(readlink "$process/cwd" 2>/dev/null) || continue
    place=${place%' (deleted)'}
    case $list in *"|$place|"*) kill -KILL "${process#/proc/}" 2>/dev/null; found=1 ;; esac
  done
  [ -n "$found" ] || exit 0
  round=$((round + 1))
done
"#;

struct Job {
    command: Command,
    answer: Sender<io::Result<Child>>,
}

static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();
static GUARD_PIPE: Mutex<Option<ChildStdin>> = Mutex::new(None);

/// Spawns a server whose data directory (its working directory, as PostgreSQL does it) is `data`.
pub(crate) fn spawn(command: Command, data: &Path) -> io::Result<Child> {
    watch(data)?;
    let sender = SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        thread::spawn(move || {
            for mut job in jobs {
                let result = job.command.spawn();
                // A caller that has gone away drops the child unseen; the guard still knows its directory.
                let _ = job.answer.send(result);
            }
        });
        sender
    });
    let (answer, result) = mpsc::channel();
    let gone = || io::Error::other("the thread that starts servers is gone");
    sender.send(Job { command, answer }).map_err(|_| gone())?;
    result.recv().map_err(|_| gone())?
}

/// Tells the guard about a data directory, starting the guard at first use.
fn watch(data: &Path) -> io::Result<()> {
    let real = data.canonicalize()?;
    let mut pipe = GUARD_PIPE.lock().unwrap_or_else(PoisonError::into_inner);
    if pipe.is_none() {
        let mut guard = Command::new("sh")
            .args(["-c", GUARD, "rds-local-guard"])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Its own group: an interrupt from the keyboard is for us, not for the guard.
            .process_group(0)
            .spawn()?;
        *pipe = guard.stdin.take();
    }
    if let Some(pipe) = pipe.as_mut() {
        writeln!(pipe, "{}", real.display())?;
        pipe.flush()?;
    }
    Ok(())
}
