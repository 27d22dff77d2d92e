//! Reads the parameters of a query-protocol request: flat names with dots for structure and numbers for lists.

use std::collections::BTreeMap;

use super::fault::Fault;

/// One tag. The value may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) key: String,
    pub(super) value: String,
}

/// `Filters`: name and accepted values.
pub(super) type Filters = Vec<(String, Vec<String>)>;

/// The parameters of one request.
#[derive(Debug, Default)]
pub(super) struct Params(BTreeMap<String, String>);

impl Params {
    pub(super) fn new(pairs: Vec<(String, String)>) -> Self {
        Self(pairs.into_iter().collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    pub(super) fn required(&self, name: &str) -> Result<&str, Fault> {
        self.get(name).filter(|value| !value.is_empty()).ok_or_else(|| Fault::missing(name))
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(text) if text.eq_ignore_ascii_case("true") => Ok(Some(true)),
            Some(text) if text.eq_ignore_ascii_case("false") => Ok(Some(false)),
            Some(text) => {
                Err(Fault::new("MalformedInput", 400, format!("{text} is not a valid boolean for {name}")))
            }
        }
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u32>, Fault> {
        self.get(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    Fault::new("MalformedInput", 400, format!("{text} is not a valid integer for {name}"))
                })
            })
            .transpose()
    }

    /// The indices used below `prefix.<member>.`, with the prefix of each: the member's name is the service model's
    /// or plain `member`.
    fn entries(&self, prefix: &str) -> Vec<String> {
        let start = format!("{prefix}.");
        let mut found: BTreeMap<u32, String> = BTreeMap::new();
        for name in self.0.keys() {
            let Some(rest) = name.strip_prefix(&start) else { continue };
            let mut parts = rest.splitn(3, '.');
            let (Some(member), Some(index)) = (parts.next(), parts.next()) else { continue };
            if let Ok(number) = index.parse() {
                found.insert(number, format!("{prefix}.{member}.{index}"));
            }
        }
        found.into_values().collect()
    }

    /// A list of strings; `None` where it is absent.
    pub(super) fn list(&self, prefix: &str) -> Option<Vec<String>> {
        let entries = self.entries(prefix);
        (!entries.is_empty()).then(|| entries.iter().filter_map(|name| self.text(name)).collect())
    }

    /// `Tags`, checked as AWS does: keys of 1 to 128 characters without the reserved prefix, values up to 256, each
    /// key once, 50 at most.
    pub(super) fn tags(&self) -> Result<Option<Vec<Tag>>, Fault> {
        let entries = self.entries("Tags");
        let mut tags: Vec<Tag> = Vec::new();
        for entry in &entries {
            let key = self.required(&format!("{entry}.Key"))?.to_owned();
            let value = self.text(&format!("{entry}.Value")).unwrap_or_default();
            if key.to_ascii_lowercase().starts_with("aws:") {
                return Err(Fault::value(format!(
                    "Tag keys starting with aws: are reserved for system use: {key}"
                )));
            }
            if key.chars().count() > 128 || value.chars().count() > 256 {
                return Err(Fault::value(format!(
                    "Tag {key} is too long: 128 characters a key, 256 a value"
                )));
            }
            if tags.iter().any(|tag| tag.key == key) {
                return Err(Fault::value(format!("Tag key {key} is given more than once")));
            }
            tags.push(Tag { key, value });
        }
        if tags.len() > 50 {
            return Err(Fault::value("A resource can have 50 tags at most"));
        }
        Ok((!entries.is_empty()).then_some(tags))
    }

    /// `Filters`, each of a known name.
    pub(super) fn filters(&self, known: &[&str]) -> Result<Filters, Fault> {
        self.entries("Filters")
            .into_iter()
            .map(|entry| {
                let name = self.required(&format!("{entry}.Name"))?.to_owned();
                if !known.contains(&name.as_str()) {
                    return Err(Fault::value(format!("Unrecognized filter name: {name}")));
                }
                let values = self
                    .list(&format!("{entry}.Values"))
                    .ok_or_else(|| Fault::value(format!("Filter {name} has no values")))?;
                Ok((name, values))
            })
            .collect()
    }

    /// Cuts one page out of items sorted by key: those after `Marker`, `MaxRecords` (20 to 100, default 100) of them,
    /// with the marker of the next page. A marker names the last key given, so that items which come or go meanwhile
    /// shift nothing.
    pub(super) fn page<T>(&self, items: Vec<(String, T)>) -> Result<(Vec<T>, Option<String>), Fault> {
        let size = self.number("MaxRecords")?.unwrap_or(100);
        if !(20..=100).contains(&size) {
            let message = format!("Invalid value {size} for MaxRecords. Must be between 20 and 100");
            return Err(Fault::value(message));
        }
        let after = self.get("Marker").filter(|marker| !marker.is_empty()).map(read_marker).transpose()?;
        let mut rest: Vec<(String, T)> =
            items.into_iter().filter(|(key, _)| after.as_ref().is_none_or(|after| key > after)).collect();
        let more = rest.len() > size as usize;
        rest.truncate(size as usize);
        let marker = rest.last().filter(|_| more).map(|(key, _)| write_marker(key));
        Ok((rest.into_iter().map(|(_, item)| item).collect(), marker))
    }
}

fn write_marker(key: &str) -> String {
    key.bytes().fold(String::new(), |marker, byte| format!("{marker}{byte:02x}"))
}

fn read_marker(marker: &str) -> Result<String, Fault> {
    let wrong = || Fault::value("Invalid or expired pagination token: Marker");
    if !marker.len().is_multiple_of(2) || !marker.is_ascii() {
        return Err(wrong());
    }
    let bytes = (0..marker.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&marker[at..at + 2], 16))
        .collect::<Result<Vec<u8>, _>>()
        .map_err(|_| wrong())?;
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Params {
        Params::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn lists_are_read_in_the_order_of_their_numbers() {
        let pairs: Vec<(String, String)> = (1..=12)
            .rev()
            .map(|n| (format!("SubnetIds.SubnetIdentifier.{n}"), format!("subnet-{n}")))
            .collect();
        let wanted: Vec<String> = (1..=12).map(|n| format!("subnet-{n}")).collect();
        assert_eq!(Params::new(pairs).list("SubnetIds"), Some(wanted));
        assert_eq!(params(&[("Other", "x")]).list("SubnetIds"), None);
    }

    #[test]
    fn pages_neither_repeat_nor_lose_an_item_when_others_go() {
        let items = |from: u32| (from..45).map(|n| (format!("{n:03}"), n)).collect::<Vec<_>>();
        let (first, marker) = params(&[("MaxRecords", "20")]).page(items(0)).unwrap();
        assert_eq!(first, (0..20).collect::<Vec<_>>());
        let (second, marker) =
            params(&[("MaxRecords", "20"), ("Marker", &marker.unwrap())]).page(items(10)).unwrap();
        assert_eq!(second, (20..40).collect::<Vec<_>>());
        let (third, marker) =
            params(&[("MaxRecords", "20"), ("Marker", &marker.unwrap())]).page(items(0)).unwrap();
        assert_eq!((third, marker), ((40..45).collect(), None));
    }

    #[test]
    fn page_sizes_outside_20_to_100_and_foreign_markers_are_refused() {
        for wrong in [("MaxRecords", "19"), ("MaxRecords", "101"), ("Marker", "zz"), ("Marker", "abc")] {
            assert_eq!(
                params(&[wrong]).page(vec![("a".to_owned(), 1)]).unwrap_err().code,
                "InvalidParameterValue"
            );
        }
        for right in [("MaxRecords", "20"), ("MaxRecords", "100"), ("Marker", "")] {
            assert_eq!(params(&[right]).page(vec![("a".to_owned(), 1)]).unwrap(), (vec![1], None));
        }
    }

    #[test]
    fn reserved_tags_are_refused_in_any_case() {
        for (key, fine) in [("aws:x", false), ("AWS:x", false), ("awsx", true), ("lifeboat:proof", true)] {
            let tags = params(&[("Tags.Tag.1.Key", key), ("Tags.Tag.1.Value", "v")]).tags();
            assert_eq!(tags.is_ok(), fine, "{key}");
        }
    }
}
