//! From the driver's errors to ours, without ever letting row content through.
//!
//! PostgreSQL quotes values of rows in the messages of some classes (22: "invalid input syntax for type integer:
//! ...", 23: "Key (email)=(...) already exists"). Of those only the SQLSTATE is kept; the messages of classes that
//! speak of the server, of permissions or of damage are kept, their DETAIL and HINT never.
//!
//! A user's function can raise any SQLSTATE with any text, and examining a restore runs users' functions: those of
//! expression indexes. Errors from inside a function carry a context, and of those only the SQLSTATE is kept, too.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use dr_core::{DrError, ErrorName};
use tokio_postgres::error::DbError;

/// What a server said, as far as it may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSaid {
    /// SQLSTATE, such as `XX001`.
    pub sqlstate: String,
    /// The message, or that it is withheld.
    pub message: String,
}

impl fmt::Display for ServerSaid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SQLSTATE {}: {}", self.sqlstate, self.message)
    }
}

impl StdError for ServerSaid {}

/// Classes whose messages hold no values of rows, as the server itself uses them.
const OPEN_CLASSES: [&str; 14] =
    ["08", "0A", "25", "26", "28", "3D", "40", "42", "53", "54", "55", "57", "58", "XX"];

impl ServerSaid {
    pub(crate) fn of(error: &DbError) -> Self {
        let sqlstate = error.code().code().to_owned();
        let open = error.where_().is_none() && OPEN_CLASSES.iter().any(|class| sqlstate.starts_with(class));
        let message =
            if open { error.message().chars().take(300).collect() } else { "message withheld".to_owned() };
        Self { sqlstate, message }
    }
}

/// The SQLSTATE of an error, when the server sent one.
pub(crate) fn sqlstate(error: &tokio_postgres::Error) -> Option<&str> {
    error.code().map(tokio_postgres::error::SqlState::code)
}

/// The error's name in our terms. `connecting` tells a broken connection from one that never was.
fn name(error: &tokio_postgres::Error, connecting: bool) -> ErrorName {
    let Some(code) = sqlstate(error) else {
        return if has_certificate_fault(error) {
            ErrorName::CertificateRejected
        } else if connecting {
            ErrorName::ConnectionFailed
        } else if error.is_closed() || io_fault(error) {
            ErrorName::ConnectionLost
        } else {
            ErrorName::QueryFailed
        };
    };
    match code {
        "28P01" | "28000" => ErrorName::CredentialsRejected,
        "42501" => ErrorName::PermissionMissing,
        // Starting up, shutting down, in recovery; too many connections.
        "57P03" | "53300" => ErrorName::ConnectionFailed,
        "57P01" | "57P02" | "57P05" | "25P03" => ErrorName::ConnectionLost,
        _ if code.starts_with("08") => ErrorName::ConnectionLost,
        // Somebody holds a lock, or a standby gave up a query for replay: both pass.
        "55P03" | "40001" | "40P01" => ErrorName::DatabaseUnavailable,
        "57014" => ErrorName::FunctionTimedOut,
        _ => ErrorName::QueryFailed,
    }
}

/// Our error for the driver's, with what was being done.
pub(crate) fn named(what: impl Into<String>, error: tokio_postgres::Error, connecting: bool) -> DrError {
    let name = name(&error, connecting);
    let dr = DrError::new(name, what);
    match error.as_db_error() {
        Some(db) => {
            let said = ServerSaid::of(db);
            let dr = match name {
                ErrorName::DatabaseUnavailable => {
                    dr.with_remedy("Nothing: another session was in the way; it is tried again.")
                }
                ErrorName::QueryFailed => {
                    dr.with_remedy(format!("The server answered with SQLSTATE {}.", said.sqlstate))
                }
                _ => dr,
            };
            dr.with_source(said)
        }
        // What is left speaks of sockets, TLS and protocol.
        None => dr.with_source(error),
    }
}

pub(crate) use dr_database::pool::is_passing;

/// An error and what lies below it.
fn chain<'e>(error: &'e (dyn StdError + 'static)) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    fn below<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e (dyn StdError + 'static)> {
        match error.downcast_ref::<io::Error>() {
            // An I/O error's source skips the error inside it.
            Some(io) => io.get_ref().map(|inner| inner as &(dyn StdError + 'static)),
            None => error.source(),
        }
    }
    std::iter::successors(Some(error), |error| below(*error))
}

fn has_certificate_fault(error: &tokio_postgres::Error) -> bool {
    chain(error).any(|error| {
        matches!(
            error.downcast_ref::<rustls::Error>(),
            Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
        )
    })
}

fn io_fault(error: &tokio_postgres::Error) -> bool {
    chain(error).any(<dyn StdError>::is::<io::Error>)
}
