//! Under which account servers and their tools run: PostgreSQL refuses to run as root, so root starts them as
//! `nobody`; anybody else as themselves.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use nix::unistd::{User, geteuid};

use super::error::{Error, IoContext};

/// Bit of CAP_DAC_OVERRIDE in the kernel's capability sets.
const DAC_OVERRIDE: u64 = 1 << 1;

/// The account that owns data directories, or `None` to stay who we are.
fn other_account() -> Option<(u32, u32)> {
    if !geteuid().is_root() {
        return None;
    }
    // 65534 is what every Linux distribution gives to nobody.
    let (uid, gid) = match User::from_name("nobody") {
        Ok(Some(user)) => (user.uid.as_raw(), user.gid.as_raw()),
        _ => (65534, 65534),
    };
    Some((uid, gid))
}

/// A command that runs `program` under the servers' account and dies by SIGKILL with the *thread* that spawns it.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if let Some((uid, gid)) = other_account() {
        command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).arg("--clear-groups");
        if may_override() {
            // Programs and data may lie below a directory that only root may enter (/root, a private temporary
            // directory). access(2) asks for the real user's rights, hence the securebit.
            command.args([
                "--securebits=+no_setuid_fixup",
                "--inh-caps=-all,+dac_override",
                "--ambient-caps=-all,+dac_override",
            ]);
        }
    }
    command.arg("--").arg(program).current_dir("/").env("LC_ALL", "C.UTF-8").env_remove("PGDATA");
    command
}

/// Whether this root has kept the right to hand CAP_DAC_OVERRIDE on (containers may take it away).
fn may_override() -> bool {
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?.trim().to_owned();
            u64::from_str_radix(&line, 16).ok()
        })
        .is_some_and(|capabilities| capabilities & DAC_OVERRIDE != 0)
}

/// Makes a file or directory the servers' own.
pub(crate) fn give(path: &Path) -> Result<(), Error> {
    match other_account() {
        Some((uid, gid)) => chown(path, Some(uid), Some(gid)).doing("giving to the server account", path),
        None => Ok(()),
    }
}

/// Creates a directory (and its parents) that only the servers' account may enter.
pub(crate) fn private_dir(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).doing("creating", path)?;
    fs::set_permissions(path, Permissions::from_mode(0o700)).doing("protecting", path)?;
    give(path)
}

/// Writes a file that only the servers' account may read.
pub(crate) fn private_file(path: &Path, content: &str) -> Result<(), Error> {
    fs::write(path, content).doing("writing", path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600)).doing("protecting", path)?;
    give(path)
}
