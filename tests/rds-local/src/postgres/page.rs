//! PostgreSQL's page format, as far as damaging a page on purpose needs it.

/// Bytes in a page. Clusters built with another size are not handled.
pub const BLOCK_SIZE: usize = 8192;

/// Where the checksum sits in the page header.
const CHECKSUM_AT: usize = 8;
const LANES: usize = 32;
const FNV_PRIME: u32 = 16_777_619;

/// Starting states of the lanes: arbitrary numbers that are part of the on-disk format
/// (src/include/storage/checksum_impl.h in PostgreSQL).
const SEEDS: [u32; LANES] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// The checksum that PostgreSQL expects in `page` at `block` of its relation (counted over all segment files).
/// The checksum stored in the page does not take part. Not meaningful for a page of zeros, which has none.
pub fn page_checksum(page: &[u8; BLOCK_SIZE], block: u32) -> u16 {
    let mix = |state: u32, value: u32| {
        let mixed = state ^ value;
        mixed.wrapping_mul(FNV_PRIME) ^ (mixed >> 17)
    };
    let mut lanes = SEEDS;
    for (index, word) in page.chunks_exact(4).enumerate() {
        let mut value = [word[0], word[1], word[2], word[3]];
        if index == CHECKSUM_AT / 4 {
            value[0] = 0;
            value[1] = 0;
        }
        lanes[index % LANES] = mix(lanes[index % LANES], u32::from_le_bytes(value));
    }
    for _ in 0..2 {
        for lane in &mut lanes {
            *lane = mix(*lane, 0);
        }
    }
    let folded = lanes.into_iter().fold(0, |sum, lane| sum ^ lane) ^ block;
    // Never zero: the remainder fits 16 bits after adding one.
    u16::try_from(folded % 65535 + 1).unwrap_or(u16::MAX)
}

/// Writes the right checksum into a page.
pub(super) fn seal(page: &mut [u8; BLOCK_SIZE], block: u32) {
    let checksum = page_checksum(page, block).to_le_bytes();
    page[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&checksum);
}

/// Whether the checksum in the page is the right one.
pub(super) fn is_sealed(page: &[u8; BLOCK_SIZE], block: u32) -> bool {
    u16_at(page, CHECKSUM_AT) == page_checksum(page, block)
}

pub(super) fn u16_at(page: &[u8; BLOCK_SIZE], at: usize) -> u16 {
    u16::from_le_bytes([page[at], page[at + 1]])
}

pub(super) fn u32_at(page: &[u8; BLOCK_SIZE], at: usize) -> u32 {
    u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]])
}

/// In a B-tree leaf page with at least two entries, the offsets of the first and the last entry's line pointer.
/// The high key of a page that is not the rightmost is not an entry.
pub(super) fn leaf_entries(page: &[u8; BLOCK_SIZE]) -> Option<(usize, usize)> {
    const HEADER: usize = 24;
    const POINTER: usize = 4;
    const LEAF: u16 = 1;
    const UNUSABLE: u16 = (1 << 2) | (1 << 3) | (1 << 4); // deleted, meta, half dead
    let (lower, special) = (usize::from(u16_at(page, 12)), usize::from(u16_at(page, 16)));
    if lower < HEADER || special + 16 > BLOCK_SIZE || lower > special {
        return None;
    }
    let (right_sibling, flags) = (u32_at(page, special + 4), u16_at(page, special + 12));
    if flags & LEAF == 0 || flags & UNUSABLE != 0 {
        return None;
    }
    let first = if right_sibling == 0 { HEADER } else { HEADER + POINTER };
    let last = lower.checked_sub(POINTER)?;
    (last > first).then_some((first, last))
}
