//! Damage on purpose, to the files of a stopped cluster. Settle it first ([`Cluster::settle`]): crash recovery
//! would restore damaged pages from full-page images in WAL.
//!
//! Every function checks that the bytes on disk really changed and says which.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::cluster::Cluster;
use super::page::{self, BLOCK_SIZE};
use crate::host::error::{Error, IoContext};
use crate::host::{ChecksumFix, Damage};

/// Blocks in one segment file of a relation (1 GB).
const SEGMENT_BLOCKS: u32 = 131_072;

type Page = [u8; BLOCK_SIZE];

/// A relation's place on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    database: String,
    name: String,
    path: PathBuf,
}

impl Relation {
    pub(super) fn new(database: &str, name: &str, path: &str) -> Self {
        Self { database: database.to_owned(), name: name.to_owned(), path: PathBuf::from(path) }
    }

    /// The first segment's path below the data directory.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    fn target(&self) -> String {
        format!("{} in {}", self.name, self.database)
    }
}

impl Cluster {
    /// One page as it is on disk.
    pub fn read_page(&self, relation: &Relation, block: u32) -> Result<Page, Error> {
        let (file, offset) = self.place(relation, block);
        let handle = OpenOptions::new().read(true).open(&file).doing("opening", &file)?;
        let length = handle.metadata().doing("looking at", &file)?.len();
        if offset + BLOCK_SIZE as u64 > length {
            let reason = format!("it has no block {block}: {} is {length} bytes long", file.display());
            return Err(Error::Damage { target: relation.target(), reason });
        }
        let mut page = [0; BLOCK_SIZE];
        handle.read_exact_at(&mut page, offset).doing("reading", &file)?;
        Ok(page)
    }

    /// Overwrites one page with zeros. PostgreSQL takes it for a new, empty page.
    pub fn zero_page(&self, relation: &Relation, block: u32) -> Result<Damage, Error> {
        self.change(relation, block, format!("block {block} zeroed"), |page| page.fill(0))
    }

    /// Inverts `bytes` bytes from `offset` of one page.
    pub fn flip_bytes(
        &self,
        relation: &Relation,
        block: u32,
        offset: usize,
        bytes: usize,
        fix: ChecksumFix,
    ) -> Result<Damage, Error> {
        if bytes == 0 || offset + bytes > BLOCK_SIZE {
            let reason = format!("bytes {offset}..{} are not within a page", offset + bytes);
            return Err(Error::Damage { target: relation.target(), reason });
        }
        let what = format!(
            "block {block}: {bytes} byte(s) at {offset} inverted, checksum {}",
            match fix {
                ChecksumFix::Leave => "left",
                ChecksumFix::Fix => "made right",
            }
        );
        self.change(relation, block, what, |page| {
            for byte in &mut page[offset..offset + bytes] {
                *byte = !*byte;
            }
            if fix == ChecksumFix::Fix {
                page::seal(page, block);
            }
        })
    }

    /// Cuts the last `blocks` blocks off the relation's (last) file.
    pub fn truncate_file(&self, relation: &Relation, blocks: u32) -> Result<Damage, Error> {
        let data = self.data_dir();
        let first = data.join(&relation.path);
        let segment = |number: u32| PathBuf::from(format!("{}.{number}", first.display()));
        let mut file = first.clone();
        for number in (1u32..).take_while(|&number| segment(number).exists()) {
            file = segment(number);
        }
        let handle = OpenOptions::new().write(true).open(&file).doing("opening", &file)?;
        let length = handle.metadata().doing("looking at", &file)?.len();
        let cut = u64::from(blocks) * BLOCK_SIZE as u64;
        if blocks == 0 || cut > length {
            let reason = format!("{} has {} blocks", file.display(), length / BLOCK_SIZE as u64);
            return Err(Error::Damage { target: relation.target(), reason });
        }
        handle.set_len(length - cut).doing("truncating", &file)?;
        Ok(Damage {
            file,
            what: format!("last {blocks} block(s) cut off, {} left", (length - cut) / BLOCK_SIZE as u64),
        })
    }

    /// Replaces one page by what it was in an older copy: a write that never reached the disk.
    pub fn stale_page(
        &self,
        relation: &Relation,
        block: u32,
        older: &Cluster,
        older_relation: &Relation,
    ) -> Result<Damage, Error> {
        let old = older.read_page(older_relation, block)?;
        self.change(relation, block, format!("block {block} replaced by its older self"), |page| *page = old)
    }

    /// Swaps the first and the last entry of a B-tree's first leaf page that has two, with a right checksum: the
    /// order of the index is wrong, and searches miss rows.
    pub fn corrupt_index(&self, index: &Relation) -> Result<Damage, Error> {
        const BTREE_MAGIC: u32 = 0x05_3162;
        let refuse = |reason: &str| Error::Damage { target: index.target(), reason: reason.to_owned() };
        if page::u32_at(&self.read_page(index, 0)?, 24) != BTREE_MAGIC {
            return Err(refuse("it is no B-tree"));
        }
        let mut block = 1;
        loop {
            let page = self.read_page(index, block).map_err(|_| refuse("no leaf page has two entries"))?;
            if let Some((first, last)) = page::leaf_entries(&page) {
                let what = format!("leaf block {block}: first and last entry swapped, checksum made right");
                return self.change(index, block, what, |page| {
                    for byte in 0..4 {
                        page.swap(first + byte, last + byte);
                    }
                    page::seal(page, block);
                });
            }
            block += 1;
        }
    }

    /// Whether the checksum stored in a page is right.
    pub fn page_is_sealed(&self, relation: &Relation, block: u32) -> Result<bool, Error> {
        Ok(page::is_sealed(&self.read_page(relation, block)?, block))
    }

    fn place(&self, relation: &Relation, block: u32) -> (PathBuf, u64) {
        let first = self.data_dir().join(&relation.path);
        let file = match block / SEGMENT_BLOCKS {
            0 => first,
            number => PathBuf::from(format!("{}.{number}", first.display())),
        };
        (file, u64::from(block % SEGMENT_BLOCKS) * BLOCK_SIZE as u64)
    }

    fn change(
        &self,
        relation: &Relation,
        block: u32,
        what: String,
        edit: impl FnOnce(&mut Page),
    ) -> Result<Damage, Error> {
        let before = self.read_page(relation, block)?;
        let mut after = before;
        edit(&mut after);
        if after == before {
            let reason = format!("block {block} would be the same as before");
            return Err(Error::Damage { target: relation.target(), reason });
        }
        let (file, offset) = self.place(relation, block);
        let handle = OpenOptions::new().write(true).open(&file).doing("opening", &file)?;
        handle.write_all_at(&after, offset).doing("writing", &file)?;
        Ok(Damage { file, what })
    }
}
