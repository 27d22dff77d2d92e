//! Framing and examining real servers. Each test starts what it needs and stops it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod lab;

mod catalogue;
mod content;
mod damage;
mod hostile;
mod trouble;
mod visibility;
