//! SQL text: quoting, and reading rows that came as text.

use std::str::FromStr;

use dr_core::{DrError, ErrorName, Result};

/// Quotes an identifier.
pub(crate) fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Quotes a literal. Sessions here pin `NO_BACKSLASH_ESCAPES`.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A qualified name.
pub(crate) fn qualified(database: &str, name: &str) -> String {
    format!("{}.{}", identifier(database), identifier(name))
}

/// A row of a text query.
#[derive(Debug)]
pub(crate) struct TextRow(pub(crate) Vec<Option<String>>);

impl TextRow {
    pub(crate) fn optional(&self, column: usize) -> Option<&str> {
        self.0.get(column)?.as_deref()
    }

    pub(crate) fn text(&self, column: usize) -> Result<&str> {
        self.optional(column)
            .ok_or_else(|| unexpected(&format!("column {column} of an answer is NULL or absent")))
    }

    pub(crate) fn parse<T: FromStr>(&self, column: usize) -> Result<T> {
        let text = self.text(column)?;
        text.parse().map_err(|_| unexpected(&format!("column {column} of an answer has an unexpected form")))
    }

    pub(crate) fn parse_optional<T: FromStr>(&self, column: usize) -> Result<Option<T>> {
        self.optional(column).map(|_| self.parse(column)).transpose()
    }

    pub(crate) fn flag(&self, column: usize) -> Result<bool> {
        Ok(self.text(column)? == "1")
    }
}

/// An answer that the catalogue's documentation does not allow.
pub(crate) fn unexpected(what: &str) -> DrError {
    DrError::new(ErrorName::Internal, format!("reading the server's answer: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_what_people_put_into_names() {
        assert_eq!(qualified("a`b", "c 'd\\"), "`a``b`.`c 'd\\`");
        assert_eq!(literal("it's \\ fine"), "'it''s \\ fine'");
    }
}
