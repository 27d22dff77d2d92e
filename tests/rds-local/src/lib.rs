//! A local stand-in for Amazon RDS: the query API over real PostgreSQL servers.
//!
//! [`postgres`] runs raw servers and needs no API; other crates' tests use it. [`server`] is the API.

pub mod postgres;
pub mod server;
