//! The shell around `dr-core`: everything that talks to AWS or to the Lambda runtime.
//!
//! Adapters turn answers into `dr-core`'s types and faults into its error names; nothing outside this crate sees
//! an `SdkError`. No decision is made here: an adapter does one call and says what came back.

#[cfg(feature = "blocks")]
pub mod blocks;
#[cfg(all(test, feature = "blocks", feature = "kms", feature = "rds", feature = "secrets"))]
mod blocks_tests;
#[cfg(any(
    feature = "rds",
    feature = "kms",
    feature = "s3",
    feature = "secrets",
    feature = "dynamodb",
    feature = "raw"
))]
pub mod clients;
pub mod errors;
#[cfg(feature = "sfn")]
pub mod executions;
#[cfg(feature = "raw")]
pub mod http;
#[cfg(feature = "kms")]
pub mod kms;
#[cfg(feature = "cloudwatch")]
pub mod measures;
pub mod metrics;
#[cfg(feature = "s3")]
pub mod objects;
#[cfg(feature = "raw")]
pub mod raw;
#[cfg(feature = "rds")]
pub mod rds;
mod run;
#[cfg(feature = "secrets")]
pub mod secrets;
#[cfg(feature = "dynamodb")]
pub mod state;
#[cfg(all(
    test,
    feature = "cloudwatch",
    feature = "dynamodb",
    feature = "rds",
    feature = "secrets",
    feature = "sns"
))]
mod survey_tests;
pub mod telemetry;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod time;
#[cfg(feature = "sns")]
pub mod topics;
#[cfg(all(test, feature = "rds", feature = "kms", feature = "s3", feature = "secrets"))]
mod wire_tests;

pub use run::{Invocation, run};

/// The function's environment variables, to be read by [`dr_core::config::Vars`].
///
/// The only place that reads them.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn environment() -> dr_core::config::Vars<'static> {
    dr_core::config::Vars::new(|name| std::env::var(name).ok())
}
