//! From the driver's errors to ours, without ever letting row content through.
//!
//! MySQL quotes values of rows in many messages ("Duplicate entry '…' for key", "Incorrect integer value: '…'"). Only
//! the messages of errors that speak of the server, of permissions or of damage are kept.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use dr_core::{DrError, ErrorName};
use mysql_async::{DriverError, Error, IoError, ServerError};

/// What a server said, as far as it may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSaid {
    /// The error's number, such as 1034.
    pub number: u16,
    /// The message, or that it is withheld.
    pub message: String,
}

impl fmt::Display for ServerSaid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error {}: {}", self.number, self.message)
    }
}

impl StdError for ServerSaid {}

/// Errors whose messages hold no values of rows: connections and rights, names, files, damage, time and locks.
const OPEN: &[u16] = &[
    126, 127, 144, 145, 1016, 1017, 1021, 1030, 1033, 1034, 1035, 1037, 1040, 1044, 1045, 1049, 1053, 1054,
    1142, 1143, 1146, 1194, 1195, 1203, 1205, 1213, 1226, 1227, 1290, 1317, 1370, 1412, 1419, 1459, 1698,
    1707, 1712, 1815, 1877, 1927, 1932, 1969, 3024, 3168,
];

impl ServerSaid {
    pub(crate) fn of(error: &ServerError) -> Self {
        let open = OPEN.contains(&error.code);
        let message =
            if open { error.message.chars().take(300).collect() } else { "message withheld".to_owned() };
        Self { number: error.code, message }
    }
}

/// The server's own error, when it sent one.
pub(crate) fn server_error(error: &Error) -> Option<&ServerError> {
    match error {
        Error::Server(error) => Some(error),
        _ => None,
    }
}

fn name(error: &Error, connecting: bool) -> ErrorName {
    let Some(server) = server_error(error) else {
        return if has_certificate_fault(error) {
            ErrorName::CertificateRejected
        } else if connecting {
            ErrorName::ConnectionFailed
        } else {
            ErrorName::ConnectionLost
        };
    };
    match server.code {
        1045 | 1698 => ErrorName::CredentialsRejected,
        1044 | 1142 | 1143 | 1227 | 1370 => ErrorName::PermissionMissing,
        // Too many connections, of all or of this user.
        1040 | 1203 | 1226 => ErrorName::ConnectionFailed,
        1053 | 1927 => ErrorName::ConnectionLost,
        // A lock that is held, a deadlock, a definition that changed in between: they pass.
        1205 | 1213 | 1412 => ErrorName::DatabaseUnavailable,
        1317 | 1969 | 3024 => ErrorName::FunctionTimedOut,
        _ => ErrorName::QueryFailed,
    }
}

/// Our error for the driver's, with what was being done.
pub(crate) fn named(what: impl Into<String>, error: &Error, connecting: bool) -> DrError {
    let name = name(error, connecting);
    let dr = DrError::new(name, what);
    match error {
        Error::Server(server) => {
            let said = ServerSaid::of(server);
            let dr = match name {
                ErrorName::DatabaseUnavailable => {
                    dr.with_remedy("Nothing: another session was in the way; it is tried again.")
                }
                ErrorName::QueryFailed => {
                    dr.with_remedy(format!("The server answered with error {}.", said.number))
                }
                _ => dr,
            };
            dr.with_source(said)
        }
        // What is left speaks of sockets, TLS and protocol; the driver's own may quote what was received.
        Error::Io(error) => dr.with_source(error.to_string()),
        Error::Driver(DriverError::ConnectionClosed) => dr.with_source("the connection was closed"),
        Error::Driver(DriverError::NoClientSslFlagFromServer) => dr.with_source("the server offers no TLS"),
        _ => dr.with_source("the driver gave up"),
    }
}

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

fn has_certificate_fault(error: &Error) -> bool {
    if matches!(error, Error::Driver(DriverError::NoClientSslFlagFromServer)) {
        return true;
    }
    matches!(error, Error::Io(IoError::Io(_) | IoError::Tls(_)))
        && chain(error).any(|error| {
            matches!(
                error.downcast_ref::<rustls::Error>(),
                Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
            )
        })
}
