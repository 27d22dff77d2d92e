//! Tears the write-ahead log of a crash-consistent copy, so that recovery ends before it should. PostgreSQL takes
//! the first unreadable record for the end of the log and says nothing.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::str::FromStr;

use super::cluster::Cluster;
use crate::host::Damage;
use crate::host::account;
use crate::host::error::{Error, IoContext};

/// A position in the write-ahead log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lsn(pub u64);

impl FromStr for Lsn {
    type Err = String;

    /// Reads PostgreSQL's notation, `16/B374D848`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no WAL position such as 0/15D68F0");
        let (high, low) = text.split_once('/').ok_or_else(wrong)?;
        let part = |hex: &str| u32::from_str_radix(hex, 16).map_err(|_| wrong());
        Ok(Self(u64::from(part(high)?) << 32 | u64::from(part(low)?)))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// Where to tear.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TearWal {
    /// Keep this share (0 to 1) of the records that recovery would replay after the checkpoint record.
    Keep(f64),
    /// At the last record that begins before this position, so that everything from there on is lost.
    Before(Lsn),
}

impl Default for TearWal {
    fn default() -> Self {
        Self::Keep(0.5)
    }
}

impl Cluster {
    /// Makes the log unreadable from one record on. Only a copy taken from a running server has anything to tear.
    pub fn tear_wal(&self, tear: TearWal) -> Result<Damage, Error> {
        let refuse = |reason: String| Error::Damage { target: self.dir().display().to_string(), reason };
        let state = self.control("Database cluster state")?;
        if state.starts_with("shut down") {
            return Err(refuse(format!("its state is \"{state}\": recovery would replay nothing")));
        }
        let read = |key: &str| self.control(key)?.parse::<Lsn>().map_err(refuse);
        let (redo, checkpoint) =
            (read("Latest checkpoint's REDO location")?, read("Latest checkpoint location")?);
        let records: Vec<Lsn> =
            self.records_from(redo)?.into_iter().filter(|&lsn| lsn > checkpoint).collect();
        let target = match tear {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a share of a number of records, clamped to 0..=1"
            )]
            TearWal::Keep(share) => records.get((records.len() as f64 * share.clamp(0.0, 1.0)) as usize),
            TearWal::Before(limit) => records.iter().rev().find(|&&lsn| lsn < limit),
        };
        let &target = target.ok_or_else(|| {
            refuse(format!(
                "none of the {} records after the checkpoint at {checkpoint} is there",
                records.len()
            ))
        })?;
        let lost = records.iter().filter(|&&lsn| lsn >= target).count();
        let file = self.blank_from(target)?;
        Ok(Damage {
            file,
            what: format!("log unreadable from {target} on: {lost} of {} records lost", records.len()),
        })
    }

    /// Positions of the readable records, in order.
    fn records_from(&self, start: Lsn) -> Result<Vec<Lsn>, Error> {
        let program = self.toolchain().program("pg_waldump");
        let output = account::command(&program)
            .arg("--path")
            .arg(self.data_dir().join("pg_wal"))
            .arg("--start")
            .arg(start.to_string())
            .output()
            .doing("running", &program)?;
        // It always ends with an error: the end of the log is an unreadable record to it as well.
        Ok(String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| line.split_once(" lsn: ")?.1.split(',').next()?.trim().parse().ok())
            .collect())
    }

    /// Zeroes the log from a position to the end of its segment, and all later segments of the same timeline.
    fn blank_from(&self, position: Lsn) -> Result<PathBuf, Error> {
        let segment_size: u64 = self.control("Bytes per WAL segment")?.parse().map_err(|_| Error::Tool {
            tool: "pg_controldata".into(),
            output: "the WAL segment size is not a number".into(),
        })?;
        let wal = self.data_dir().join("pg_wal");
        let per_file = 0x1_0000_0000 / segment_size;
        let number = position.0 / segment_size;
        let timeline: u32 = self.control("Latest checkpoint's TimeLineID")?.parse().unwrap_or(1);
        let name = format!("{timeline:08X}{:08X}{:08X}", number / per_file, number % per_file);
        let blank = |path: &PathBuf, from: u64| {
            let handle = OpenOptions::new().write(true).open(path).doing("opening", path)?;
            let length = usize::try_from(segment_size - from).unwrap_or_default();
            handle.write_all_at(&vec![0; length], from).doing("writing", path)
        };
        for entry in fs::read_dir(&wal).doing("listing", &wal)? {
            let path = entry.doing("listing", &wal)?.path();
            let file_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if file_name.len() == name.len() && file_name > name {
                blank(&path, 0)?;
            }
        }
        let file = wal.join(name);
        blank(&file, position.0 % segment_size)?;
        Ok(file)
    }
}
