//! Writes the XML of answers.

use std::fmt::Display;

use jiff::Timestamp;
use quick_xml::escape::escape;

use super::fault::Fault;

const NAMESPACE: &str = "http://rds.amazonaws.com/doc/2014-10-31/";

/// A fragment under construction.
#[derive(Debug, Default)]
pub(super) struct Xml(String);

impl Xml {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// An element with text (or a number, a boolean).
    pub(super) fn put(&mut self, name: &str, value: impl Display) -> &mut Self {
        self.open(name);
        self.text(&format!("{value}"));
        self.close(name);
        self
    }

    /// The same where there is a value; absent members are absent, not empty.
    pub(super) fn put_some(&mut self, name: &str, value: Option<impl Display>) -> &mut Self {
        if let Some(value) = value {
            self.put(name, value);
        }
        self
    }

    /// A time with milliseconds in UTC.
    pub(super) fn put_time(&mut self, name: &str, time: Option<Timestamp>) -> &mut Self {
        self.put_some(name, time.map(|time| time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()))
    }

    /// An element with elements inside.
    pub(super) fn within(&mut self, name: &str, fill: impl FnOnce(&mut Xml)) -> &mut Self {
        self.open(name);
        fill(self);
        self.close(name);
        self
    }

    fn open(&mut self, name: &str) {
        self.0.extend(["<", name, ">"]);
    }

    fn close(&mut self, name: &str) {
        self.0.extend(["</", name, ">"]);
    }

    /// Text directly inside the element at hand.
    pub(super) fn text(&mut self, text: &str) {
        self.0.push_str(&escape(text));
    }

    /// A list element with one `member` element an item.
    pub(super) fn list<T>(
        &mut self,
        name: &str,
        member: &str,
        items: impl IntoIterator<Item = T>,
        fill: impl Fn(&mut Xml, T),
    ) -> &mut Self {
        self.within(name, |list| {
            for item in items {
                list.within(member, |xml| fill(xml, item));
            }
        })
    }

    pub(super) fn done(self) -> String {
        self.0
    }
}

/// A whole successful answer.
pub(super) fn response(action: &str, request_id: &str, result: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{action}Response xmlns=\"{NAMESPACE}\">\
         <{action}Result>{result}</{action}Result>\
         <ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{action}Response>"
    )
}

/// A whole error answer.
pub(super) fn error(fault: &Fault, request_id: &str) -> String {
    let side = if fault.status < 500 { "Sender" } else { "Receiver" };
    let (code, message) = (escape(&fault.code), escape(&fault.message));
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ErrorResponse xmlns=\"{NAMESPACE}\"><Error><Type>{side}</Type>\
         <Code>{code}</Code><Message>{message}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>"
    )
}
