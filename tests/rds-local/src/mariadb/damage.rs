//! Damage on purpose, to the files of a stopped server. Settle it first ([`Files::settle`]): crash recovery would
//! write pages anew from the redo log and the doublewrite buffer.
//!
//! Every function checks that the bytes on disk really changed and says which.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::files::Files;
use super::running::{StartOptions, StopMode};
use super::sql::literal;
use crate::host::error::{Error, IoContext};
use crate::host::{ChecksumFix, Damage};

/// InnoDB's page size.
pub const PAGE_SIZE: usize = 16_384;
/// Where the page's type is; 17855 is a B-tree node.
const PAGE_TYPE: usize = 24;
const INDEX_PAGE: u16 = 17_855;
/// Where an index page says how far up it is (0: a leaf), and of which index it is.
const PAGE_LEVEL: usize = 64;
const PAGE_INDEX: usize = 66;
/// Where the infimum, the record before the first, is in the compact formats; the two bytes before it lead on.
const INFIMUM: usize = 99;
/// The redo log's two checkpoint blocks, and where its records begin (MariaDB 10.8 and later).
const CHECKPOINTS: [u64; 2] = [0x1000, 0x2000];
const LOG_START: u64 = 0x3000;

type Page = [u8; PAGE_SIZE];

/// A table's file: `database` and `table` are plain names (letters, digits, underscores).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFile {
    database: String,
    table: String,
    extension: &'static str,
}

impl TableFile {
    /// The tablespace of an InnoDB table.
    pub fn innodb(database: &str, table: &str) -> Self {
        Self { database: database.to_owned(), table: table.to_owned(), extension: "ibd" }
    }

    /// The rows of a MyISAM table.
    pub fn myisam(database: &str, table: &str) -> Self {
        Self { database: database.to_owned(), table: table.to_owned(), extension: "MYD" }
    }

    /// The rows of an Aria table.
    pub fn aria(database: &str, table: &str) -> Self {
        Self { database: database.to_owned(), table: table.to_owned(), extension: "MAD" }
    }

    fn target(&self) -> String {
        format!("{}.{}", self.database, self.table)
    }
}

/// The checksum that InnoDB stores in the last four bytes of a page (`full_crc32`): CRC-32C over all before it.
pub fn page_checksum(page: &Page) -> u32 {
    let mut crc = u32::MAX;
    for byte in &page[..PAGE_SIZE - 4] {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82F6_3B78 } else { crc >> 1 };
        }
    }
    !crc
}

fn seal(page: &mut Page) {
    let sum = page_checksum(page);
    page[PAGE_SIZE - 4..].copy_from_slice(&sum.to_be_bytes());
}

fn u16_at(page: &Page, at: usize) -> u16 {
    u16::from_be_bytes([page[at], page[at + 1]])
}

impl Files {
    fn table_path(&self, table: &TableFile) -> PathBuf {
        self.data_dir().join(&table.database).join(format!("{}.{}", table.table, table.extension))
    }

    fn page(&self, table: &TableFile, number: u32) -> Result<Page, Error> {
        let path = self.table_path(table);
        let mut page = [0; PAGE_SIZE];
        fs::File::open(&path)
            .and_then(|file| file.read_exact_at(&mut page, u64::from(number) * PAGE_SIZE as u64))
            .doing("reading a page of", &path)?;
        Ok(page)
    }

    fn write_page(&self, table: &TableFile, number: u32, page: &Page, what: String) -> Result<Damage, Error> {
        if self.page(table, number)? == *page {
            return Err(Error::Damage { target: table.target(), reason: "nothing would change".into() });
        }
        let path = self.table_path(table);
        OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|file| file.write_all_at(page, u64::from(number) * PAGE_SIZE as u64))
            .doing("writing a page of", &path)?;
        Ok(Damage { file: path, what })
    }

    /// Pages in a table's file.
    pub fn pages(&self, table: &TableFile) -> Result<u32, Error> {
        let path = self.table_path(table);
        let bytes = fs::metadata(&path).doing("looking at", &path)?.len();
        Ok(u32::try_from(bytes / PAGE_SIZE as u64).unwrap_or(u32::MAX))
    }

    /// A page becomes zeros.
    pub fn zero_page(&self, table: &TableFile, number: u32) -> Result<Damage, Error> {
        self.write_page(table, number, &[0; PAGE_SIZE], format!("page {number} of {} zeroed", table.target()))
    }

    /// Bytes of a page are inverted.
    pub fn flip_bytes(
        &self,
        table: &TableFile,
        number: u32,
        offset: usize,
        bytes: usize,
        fix: ChecksumFix,
    ) -> Result<Damage, Error> {
        let mut page = self.page(table, number)?;
        let range = offset..offset + bytes;
        let Some(part) = page.get_mut(range) else {
            let reason = format!("{bytes} bytes at {offset} are not all inside a page");
            return Err(Error::Damage { target: table.target(), reason });
        };
        for byte in part.iter_mut() {
            *byte = !*byte;
        }
        if fix == ChecksumFix::Fix {
            seal(&mut page);
        }
        let what = format!("{bytes} bytes at {offset} of page {number} of {} inverted", table.target());
        self.write_page(table, number, &page, what)
    }

    /// The last bytes of a table's file are gone.
    pub fn truncate_table(&self, table: &TableFile, bytes: u64) -> Result<Damage, Error> {
        let path = self.table_path(table);
        let file = OpenOptions::new().write(true).open(&path).doing("opening", &path)?;
        let length = file.metadata().doing("looking at", &path)?.len();
        if bytes == 0 || bytes > length {
            let reason = format!("it has {length} bytes");
            return Err(Error::Damage { target: table.target(), reason });
        }
        file.set_len(length - bytes).doing("truncating", &path)?;
        Ok(Damage { file: path, what: format!("the last {bytes} bytes of {} cut off", table.target()) })
    }

    /// The number and content of the leaf pages of an index (`PRIMARY` for the rows themselves), in file order.
    pub fn leaves(&self, table: &TableFile, index: &str) -> Result<Vec<u32>, Error> {
        let server = self.start(&StartOptions::default())?;
        let sql = format!(
            "SELECT i.index_id FROM information_schema.innodb_sys_indexes i JOIN information_schema.innodb_sys_tables t \
             USING (table_id) WHERE t.name = {} AND i.name = {}",
            literal(&format!("{}/{}", table.database, table.table)),
            literal(index)
        );
        let id = server.sql("mysql", &sql)?.into_iter().flatten().flatten().next();
        server.stop(StopMode::Fast)?;
        let id: u64 = id.and_then(|id| id.parse().ok()).ok_or_else(|| Error::Damage {
            target: table.target(),
            reason: format!("it has no index {index}"),
        })?;
        let mut found = Vec::new();
        for number in 0..self.pages(table)? {
            let page = self.page(table, number)?;
            let of_index = page[PAGE_INDEX..PAGE_INDEX + 8] == id.to_be_bytes();
            if u16_at(&page, PAGE_TYPE) == INDEX_PAGE && u16_at(&page, PAGE_LEVEL) == 0 && of_index {
                found.push(number);
            }
        }
        Ok(found)
    }

    /// The key of the first entry on a leaf of a secondary index becomes another one; the checksum is right.
    pub fn corrupt_index(&self, table: &TableFile, index: &str) -> Result<Damage, Error> {
        let leaves = self.leaves(table, index)?;
        let Some(&number) = leaves.last() else {
            return Err(Error::Damage { target: table.target(), reason: "its index has no leaf".into() });
        };
        let mut page = self.page(table, number)?;
        let first = (INFIMUM + usize::from(u16_at(&page, INFIMUM - 2))) % (1 << 16);
        if !(INFIMUM + 8..PAGE_SIZE - 16).contains(&first) {
            return Err(Error::Damage { target: table.target(), reason: "the leaf is empty".into() });
        }
        page[first + 1] = !page[first + 1];
        seal(&mut page);
        let what = format!("the first key on page {number} of index {index} of {} changed", table.target());
        self.write_page(table, number, &page, what)
    }

    /// The redo log of a crash-consistent copy ends early: at a position such as
    /// [`super::Running::log_sequence_number`] gives, or right after its last checkpoint.
    pub fn tear_log(&self, at: Option<u64>) -> Result<Damage, Error> {
        let path = self.data_dir().join("ib_logfile0");
        let file = OpenOptions::new().read(true).write(true).open(&path).doing("opening", &path)?;
        let number = |at: u64| -> Result<u64, Error> {
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, at).doing("reading", &path)?;
            Ok(u64::from_be_bytes(bytes))
        };
        let first = number(8)?;
        let capacity = file.metadata().doing("looking at", &path)?.len() - LOG_START;
        let mut newest = (0, 0);
        for block in CHECKPOINTS {
            newest = newest.max((number(block)?, number(block + 8)?));
        }
        // The record of the checkpoint itself (some 16 bytes) has to stay: without it the server does not start.
        let after = newest.1 + 17;
        let from = at.unwrap_or(after);
        if from < after {
            let reason = format!("{from} is before the end of the checkpoint at {after}");
            return Err(Error::Damage { target: "the redo log".into(), reason });
        }
        let mut position = LOG_START + (from - first) % capacity;
        let mut changed = false;
        // Far enough that nothing after it can look like a continuation.
        for _ in 0..(1 << 20) / 4096 {
            let mut old = [0; 4096];
            let length = usize::try_from((LOG_START + capacity - position).min(4096)).unwrap_or(4096);
            file.read_exact_at(&mut old[..length], position).doing("reading", &path)?;
            changed |= old[..length].iter().any(|byte| *byte != 0);
            file.write_all_at(&[0; 4096][..length], position).doing("writing", &path)?;
            position += length as u64;
            if position == LOG_START + capacity {
                position = LOG_START;
            }
        }
        if !changed {
            let reason = format!("there is nothing after {from}");
            return Err(Error::Damage { target: "the redo log".into(), reason });
        }
        Ok(Damage { file: path, what: format!("the redo log zeroed from {from} on") })
    }
}
