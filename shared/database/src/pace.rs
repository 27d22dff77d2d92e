//! A limit of how much is read in a second.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// Keeps the reading of all connections together below a rate.
#[derive(Debug)]
pub struct Pace {
    bytes_per_second: u64,
    next: Mutex<Instant>,
}

impl Pace {
    /// So many MiB in a second.
    pub fn mebibytes_per_second(rate: u32) -> Self {
        Self { bytes_per_second: u64::from(rate.max(1)) << 20, next: Mutex::new(Instant::now()) }
    }

    /// The rate.
    pub fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second
    }

    /// Waits until so many bytes may be read.
    pub async fn wait_for(&self, bytes: u64) {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let span = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let start = {
            let mut next = self.next.lock().await;
            let start = (*next).max(Instant::now());
            *next = start + span;
            start
        };
        tokio::time::sleep_until(start).await;
    }
}
