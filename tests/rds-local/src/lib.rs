//! A local stand-in for Amazon RDS: the query API over real PostgreSQL and MariaDB servers.
//!
//! [`postgres`] and [`mariadb`] run raw servers and need no API; other crates' tests use them. [`server`] is the API.

pub mod host;
pub mod mariadb;
pub mod postgres;
pub mod server;
