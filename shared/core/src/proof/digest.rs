//! The multiset digest of rows.

use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

/// A 128-bit, order-independent digest of a multiset of rows: their number and two sums of 64-bit row hashes,
/// modulo 2^64.
///
/// Digests of disjoint parts add up to the digest of the whole, however the whole was cut. It is strong against
/// accidents and not tamper-proof: sums can be forged, and PostgreSQL's row hashes, two mixtures of the same 64 bits,
/// are not cryptographic. There, damage to a row goes unnoticed with a probability of about 2^-64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Digest {
    /// Number of rows.
    pub rows: u64,
    /// Sum of the row hashes with seed 0. Stored as 16 hexadecimal digits: JSON numbers lose bits.
    #[serde(with = "hex_u64")]
    pub s0: u64,
    /// Sum of the row hashes with seed 1.
    #[serde(with = "hex_u64")]
    pub s1: u64,
}

impl Digest {
    /// The digest of no rows.
    pub const EMPTY: Self = Self { rows: 0, s0: 0, s1: 0 };
}

impl Add for Digest {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            rows: self.rows + other.rows,
            s0: self.s0.wrapping_add(other.s0),
            s1: self.s1.wrapping_add(other.s1),
        }
    }
}

impl AddAssign for Digest {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl std::iter::Sum for Digest {
    fn sum<I: Iterator<Item = Self>>(digests: I) -> Self {
        digests.fold(Self::EMPTY, Add::add)
    }
}

mod hex_u64 {
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's `with` asks for a reference")]
    pub(super) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{value:016x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_sum_does_not_depend_on_the_cut(parts in prop::collection::vec((0u64..1000, any::<u64>(), any::<u64>()), 0..20), cut in 0usize..20) {
            let digests: Vec<Digest> = parts.iter().map(|&(rows, s0, s1)| Digest { rows, s0, s1 }).collect();
            let cut = cut.min(digests.len());
            let whole: Digest = digests.iter().copied().sum();
            let left: Digest = digests[..cut].iter().copied().sum();
            let right: Digest = digests[cut..].iter().copied().sum();
            prop_assert_eq!(whole, right + left);
        }

        #[test]
        fn json_keeps_every_bit(rows in any::<u64>(), s0 in any::<u64>(), s1 in any::<u64>()) {
            let digest = Digest { rows, s0, s1 };
            let text = serde_json::to_string(&digest).unwrap();
            prop_assert_eq!(serde_json::from_str::<Digest>(&text).unwrap(), digest);
        }
    }
}
