//! Which of the named resources a fault happens to, and how many must stay healthy.
//!
//! The choice follows from a recorded seed, so that an experiment can be repeated and a report can be checked.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::world::{Resource, State};
use crate::error::{DrError, ErrorName, Result};
use crate::ids::hex;

/// Chooses `intensity` per cent of `pool`, rounded up, at least one, in an order that follows from the seed alone.
///
/// `intensity` is 1 to 100. The order of `pool` does not matter.
pub fn choose<'a, T>(pool: &'a [T], intensity: u8, seed: &str, name: impl Fn(&T) -> String) -> Vec<&'a T> {
    let rank = |item: &T| {
        hex(&Sha256::new().chain_update(seed).chain_update([0]).chain_update(name(item)).finalize())
    };
    let mut ranked: Vec<(String, &T)> = pool.iter().map(|item| (rank(item), item)).collect();
    ranked.sort_by(|a, b| a.0.cmp(&b.0));
    let wanted = (pool.len() * usize::from(intensity)).div_ceil(100);
    ranked.into_iter().take(wanted).map(|(_, item)| item).collect()
}

/// What of a pool must stay healthy while the experiment runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Guard {
    /// The resources whose healthy members are counted together.
    pub pool: Vec<Resource>,
    /// At least so many.
    pub minimum: u32,
    /// So many were healthy when the plan was made.
    pub before: u32,
    /// So many of those the plan takes away.
    pub taken: u32,
}

impl Guard {
    /// Refuses a plan that goes below the minimum by itself.
    ///
    /// # Errors
    /// [`ErrorName::BlastRadiusExceeded`] with the numbers.
    pub fn check(&self) -> Result<()> {
        if self.before.saturating_sub(self.taken) >= self.minimum {
            return Ok(());
        }
        Err(DrError::new(
            ErrorName::BlastRadiusExceeded,
            format!(
                "planning for {}: {} are healthy, {} would be taken, {} must stay",
                names(&self.pool),
                self.before,
                self.taken,
                self.minimum
            ),
        ))
    }

    /// For people: what must stay.
    pub fn line(&self) -> String {
        let left = self.before.saturating_sub(self.taken);
        format!("{left} of {} healthy ones of {} stay, {} must", self.before, names(&self.pool), self.minimum)
    }

    /// Whether fewer than the minimum are healthy, and how many.
    pub fn broken_by(&self, healthy: u32) -> Option<String> {
        (healthy < self.minimum)
            .then(|| format!("{healthy} of {} are healthy, {} must be", names(&self.pool), self.minimum))
    }
}

/// The first names of a pool, and how many more there are.
fn names(pool: &[Resource]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<String> = pool.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = pool.len().saturating_sub(SHOWN);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

/// How many healthy members a resource counts for. What does not exist counts for none.
pub fn healthy(state: Option<&State>) -> u32 {
    let count = |members: usize| u32::try_from(members).unwrap_or(u32::MAX);
    match state {
        Some(State::Database(database)) => u32::from(database.status == "available"),
        Some(State::Machine(machine)) => u32::from(machine.state == "running"),
        Some(State::ScalingGroup(group)) => count(group.in_service.len()),
        Some(State::TargetGroup(group)) => count(group.healthy.len()),
        Some(State::Function(function)) => u32::from(function.reserved_concurrency != Some(0)),
        Some(State::Region(region)) => u32::from(!region.blocked),
        None => 0,
    }
}
