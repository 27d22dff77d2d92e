//! A Region whose API cannot be reached, for our own functions, until some moment: the fault `region-unreachable`.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::ids::{OperationId, Region};

/// How long a block stays in the table after it has ceased to count.
const KEPT: SignedDuration = SignedDuration::from_hours(24);

/// A block of a Region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegionBlock {
    /// The table's key, [`RegionBlock::key`].
    pub operation_id: String,
    /// `region-block`, so that they can be listed by the index.
    #[serde(rename = "type")]
    pub kind: String,
    /// The Region that cannot be reached.
    pub region: Region,
    /// The experiment that blocks it.
    pub owner: OperationId,
    /// Since when; part of an index.
    pub started_at: Timestamp,
    /// When it ceases to count, whether or not anybody takes it away.
    pub blocked_until: Timestamp,
    /// Counts the writes.
    pub version: u64,
    /// The item's TTL, seconds since 1970.
    pub expires_at: i64,
}

impl RegionBlock {
    /// The item's type.
    pub const KIND: &'static str = "region-block";

    /// The table's key.
    pub fn key(region: &Region) -> String {
        format!("{}#{region}", Self::KIND)
    }

    /// A block from now on. `before` is the version of the one that it takes the place of.
    pub fn new(
        region: Region,
        owner: OperationId,
        now: Timestamp,
        blocked_until: Timestamp,
        before: Option<u64>,
    ) -> Self {
        Self {
            operation_id: Self::key(&region),
            kind: Self::KIND.to_owned(),
            region,
            owner,
            started_at: now,
            blocked_until,
            version: before.unwrap_or(0) + 1,
            expires_at: blocked_until.saturating_add(KEPT).unwrap_or(Timestamp::MAX).as_second(),
        }
    }

    /// Whether it counts.
    pub fn in_force(&self, now: Timestamp) -> bool {
        now < self.blocked_until
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_block_counts_until_its_moment_and_not_in_it() {
        let now: Timestamp = "2026-11-25T12:00:00Z".parse().unwrap();
        let until = now + SignedDuration::from_mins(5);
        let owner = OperationId::parse("chaos-0123456789abcdef").unwrap();
        let block = RegionBlock::new(Region::parse("us-west-2").unwrap(), owner, now, until, Some(3));
        assert_eq!((block.operation_id.as_str(), block.version), ("region-block#us-west-2", 4));
        let nanosecond = SignedDuration::from_nanos(1);
        for (moment, counts) in [(now, true), (until - nanosecond, true), (until, false)] {
            assert_eq!(block.in_force(moment), counts, "{moment}");
        }
        let item = serde_json::to_value(&block).unwrap();
        assert_eq!(item["blockedUntil"], "2026-11-25T12:05:00Z");
        assert_eq!(item["expiresAt"], (until + KEPT).as_second());
        assert_eq!(serde_json::from_value::<RegionBlock>(item).unwrap(), block);
    }
}
