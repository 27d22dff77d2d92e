//! Frames a server as `validate_backup` does, for the benchmarks: plan, units over some connections, heartbeat. Nothing
//! is kept but the sums. Prints one line of JSON: what was read, how long it took, the most memory that it needed.
//!
//!     bench-frame SOCKET_DIRECTORY PORT DATABASE CONNECTIONS [MEBIBYTES_A_SECOND]
#![allow(clippy::print_stdout, reason = "it is what the driver reads")]

use std::cell::RefCell;
use std::error::Error;
use std::time::{Duration, Instant};

use dr_core::proof::Digest;
use dr_core::proof::cut::UNIT_BYTES;
use dr_core::proof::frame::SliceOutcome;
use dr_postgres::{
    ConnectionSettings, Limits, Pace, Security, Source, UnitWork, frame, heartbeat, read_units,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, port, database, connections, pace @ ..] = arguments.as_slice() else {
        return Err("bench-frame SOCKET_DIRECTORY PORT DATABASE CONNECTIONS [MEBIBYTES_A_SECOND]".into());
    };
    let security = Security::LocalSocket(socket.into());
    let reader = ConnectionSettings::new("localhost", port.parse()?, "postgres", None, database, security);
    let pace = pace.first().map(|rate| rate.parse().map(Pace::mebibytes_per_second)).transpose()?;

    let begun = Instant::now();
    let source = Source { reader: &reader, writer: None, instance: "bench" };
    let plan = frame::plan(&source, "backup-0000000000000000", UNIT_BYTES).await?;
    let planned = begun.elapsed();
    let visibility = frame::horizon(&reader).await?;
    let work = plan
        .units
        .iter()
        .map(|unit| UnitWork { unit: unit.clone(), visibility: Some(visibility.clone()) })
        .collect();
    let limits = Limits::lasting(connections.parse()?, Duration::from_hours(2), Duration::from_mins(1));
    let (sum, unreadable) = (RefCell::new(Digest::EMPTY), RefCell::new(0));
    let progress = read_units(&reader, &plan.tables, work, limits, pace.as_ref(), async |result| {
        for slice in result.slices {
            match slice.outcome {
                SliceOutcome::Digested(digest) => *sum.borrow_mut() += digest,
                SliceOutcome::Unreadable { .. } | SliceOutcome::Gone => *unreadable.borrow_mut() += 1,
            }
        }
        Ok(())
    })
    .await?;
    heartbeat::beat(&reader, "backup-0000000000000000").await?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    let told = serde_json::json!({
        "tables": plan.tables.len(), "units": progress.done, "left": progress.left, "rows": sum.borrow().rows,
        "unreadable": *unreadable.borrow(), "bytes": plan.tables.iter().map(|table| table.bytes).sum::<u64>(),
        "planSeconds": planned.as_secs_f64(), "seconds": begun.elapsed().as_secs_f64(),
        "peakKib": peak.trim().trim_end_matches(" kB").trim().parse::<u64>()?,
    });
    println!("{told}");
    Ok(())
}
