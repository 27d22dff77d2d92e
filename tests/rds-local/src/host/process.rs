//! Looks at and signals the processes of one server, by way of /proc.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::error::Error;

/// How long every process of a server may take to stop before a copy is given up.
const FREEZE_LIMIT: Duration = Duration::from_secs(30);

/// Parent process and state letter from a `/proc/.../stat` line; the name in it may hold anything, so look behind
/// its closing bracket.
fn state_and_parent(stat: &str) -> Option<(char, i32)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}

/// `root` and all its descendants that live now.
pub(crate) fn family(root: i32) -> BTreeSet<i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        if let Some((_, parent)) = state_and_parent(&stat) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = BTreeSet::from([root]);
    let mut queue = vec![root];
    while let Some(parent) = queue.pop() {
        for &child in children.get(&parent).into_iter().flatten() {
            if found.insert(child) {
                queue.push(child);
            }
        }
    }
    found
}

/// Whether every thread of the process is stopped (or the process is gone).
fn is_stopped(pid: i32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    tasks.flatten().all(|task| match fs::read_to_string(task.path().join("stat")) {
        Ok(stat) => state_and_parent(&stat).is_some_and(|(state, _)| matches!(state, 'T' | 't' | 'Z' | 'X')),
        Err(_) => true,
    })
}

/// Sends a signal; a process that has gone meanwhile is no error.
pub(crate) fn signal(pid: i32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid), signal);
}

/// A server all of whose processes are stopped; they go on when this is dropped.
pub(crate) struct Frozen {
    stopped: Vec<i32>,
}

impl Frozen {
    /// Stops the postmaster first, so that it starts nothing new, then its descendants until no new one shows up
    /// and every thread of each is really stopped (one inside a write finishes that write first).
    pub(crate) fn freeze(postmaster: i32) -> Result<Self, Error> {
        let begun = Instant::now();
        let mut frozen = Self { stopped: vec![postmaster] };
        signal(postmaster, Signal::SIGSTOP);
        loop {
            let family = family(postmaster);
            let mut settled = true;
            for &pid in &family {
                if !frozen.stopped.contains(&pid) {
                    frozen.stopped.push(pid);
                    signal(pid, Signal::SIGSTOP);
                    settled = false;
                }
                settled &= is_stopped(pid);
            }
            if settled {
                return Ok(frozen);
            }
            if begun.elapsed() > FREEZE_LIMIT {
                let what = "not all its processes stopped";
                return Err(Error::Stuck { pid: postmaster, what, seconds: FREEZE_LIMIT.as_secs() });
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for &pid in self.stopped.iter().rev() {
            signal(pid, Signal::SIGCONT);
        }
    }
}
