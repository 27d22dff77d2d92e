//! Which rows a digest speaks of, as arithmetic on transaction ids.
//!
//! A frame speaks of the rows that were written by transactions *below a horizon*: the `xmin` of a snapshot taken
//! before the first row was read. Whoever touches such a row later gives it a newer transaction id, or removes it, so
//! the rows found below the horizon on a restore can only be a part of those found on the source before.
//!
//! Why not the whole snapshot, with its list of transactions in progress: the list holds top-level transactions only.
//! A row written in a *subtransaction* carries the subtransaction's id, which is not in the list, and would seem to
//! have been visible once its transaction commits. Every subtransaction's id is above its parent's, hence not below
//! `xmin` while the parent is in progress: below the horizon, nothing is undecided. For the same reason it does not
//! matter whether the snapshot was taken on a standby, whose snapshots list nothing.

use super::frame::Visibility;

/// How far above its horizon a visibility can tell young rows from ancient ones, in transactions.
///
/// A row carries 32 bits of its transaction's 64-bit id. The id of a row that was frozen long ago may lie anywhere on
/// the circle of 2^32. A band of this width above the horizon counts as young, on the source and on the restore alike;
/// everything else counts as old. So a frozen row whose id happens to lie in the band is left out on both sides (at
/// most 1 row in 16, and none before the first 2^32 transactions of the server), and nothing is misjudged as long as
/// fewer transactions than this pass between frame and snapshot.
pub const BAND: u64 = 1 << 28;

/// A horizon: rows written by transactions with a smaller 64-bit id are spoken of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Horizon(u64);

impl Horizon {
    /// The horizon at a full transaction id.
    pub fn new(full_xid: u64) -> Self {
        Self(full_xid)
    }

    /// The full transaction id.
    pub fn full_xid(self) -> u64 {
        self.0
    }

    /// Its lower 32 bits, which rows are compared with.
    pub fn low(self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "the lower half is what is wanted")]
        let low = self.0 as u32;
        low
    }

    /// Whether a row whose `xmin` is `raw` is spoken of. The SQL of a digest computes the same.
    pub fn covers(self, raw: u32) -> bool {
        // 1 and 2 are the bootstrap's id and the mark of rows frozen before PostgreSQL 9.4.
        raw < 3 || u64::from(raw.wrapping_sub(self.low())) >= BAND
    }

    /// Whether a server whose next transaction id is `next` can still be compared under this horizon.
    pub fn reaches(self, next: u64) -> bool {
        next.saturating_sub(self.0) < BAND
    }
}

/// The parts of `pg_current_snapshot()`'s text, `xmin:xmax:xip,xip`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotText {
    /// Every transaction below it has ended.
    pub xmin: u64,
    /// No transaction from it on had ended.
    pub xmax: u64,
    /// Top-level transactions in progress in between.
    pub in_progress: Vec<u64>,
}

impl SnapshotText {
    /// Reads the text; `None` when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let xmin = parts.next()?.parse().ok()?;
        let xmax = parts.next()?.parse().ok()?;
        let list = parts.next()?;
        if parts.next().is_some() || xmin > xmax {
            return None;
        }
        let in_progress = match list {
            "" => Vec::new(),
            list => list.split(',').map(|xid| xid.parse().ok()).collect::<Option<_>>()?,
        };
        Some(Self { xmin, xmax, in_progress })
    }
}

impl Visibility {
    /// The visibility of everything below the `xmin` of a snapshot.
    pub fn below_xmin_of(snapshot: impl Into<String>) -> Self {
        Self { snapshot: snapshot.into(), below_xmin_only: true }
    }

    /// The horizon; `None` when the snapshot's text cannot be read.
    pub fn horizon(&self) -> Option<Horizon> {
        SnapshotText::parse(&self.snapshot).map(|snapshot| Horizon::new(snapshot.xmin))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_snapshots() {
        let parse = SnapshotText::parse;
        assert_eq!(parse("10:10:"), Some(SnapshotText { xmin: 10, xmax: 10, in_progress: vec![] }));
        assert_eq!(
            parse("4294967300:4294967310:4294967300,4294967305"),
            Some(SnapshotText {
                xmin: 4_294_967_300,
                xmax: 4_294_967_310,
                in_progress: vec![4_294_967_300, 4_294_967_305],
            })
        );
        for bad in ["", "10", "10:20", "20:10:", "10:20:x", "10:20:11:12", "-1:20:", "10:20:,"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn covers_the_old_and_leaves_out_the_young() {
        let cases = [
            (1000, 999, true),
            (1000, 1000, false),
            (1000, 1001, false),
            (1000, 2, true),
            (1000, 1, true),
            (1000, 3, true),
            // Just behind the band: from before the last wrap.
            (1000, 1000 + (1 << 28) - 1, false),
            (1000, 1000 + (1 << 28), true),
            // Past the first epoch.
            ((1 << 32) + 500, 499, true),
            ((1 << 32) + 500, 500, false),
            ((1 << 32) + 500, u32::MAX, true),
            // The band itself wraps.
            ((1 << 32) - 10, u32::MAX, false),
            ((1 << 32) - 10, u32::MAX - 10, true),
            ((1 << 32) - 10, 5, false),
            ((1 << 32) - 10, 2, true),
        ];
        for (horizon, raw, expected) in cases {
            assert_eq!(Horizon::new(horizon).covers(raw), expected, "{raw} at {horizon}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_full_ids_wherever_a_row_is_not_frozen(
            horizon in 3u64..(1 << 40), below in 0u64..(1 << 31), passed in 0u64..BAND,
        ) {
            #[expect(clippy::cast_possible_truncation, reason = "what a row carries")]
            let raw = |full: u64| full as u32;
            let old = horizon.saturating_sub(below + 1);
            prop_assume!(old >= 3 && raw(old) >= 3);
            prop_assert!(Horizon::new(horizon).covers(raw(old)));
            let young = horizon + passed;
            prop_assume!(raw(young) >= 3);
            prop_assert!(!Horizon::new(horizon).covers(raw(young)));
            prop_assert!(Horizon::new(horizon).reaches(young));
        }
    }
}
