//! Reading the environment: every fault is collected, so that one deployment mends them all.
//!
//! The environment itself is a function handed in; nothing here reads it. A variable that is set to the empty
//! string counts as absent, because CloudFormation cannot leave a variable out conditionally without effort.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::error::{DrError, ErrorName, Result};
use crate::ids::{KmsKeyId, Region};

/// What a parser of one variable's text returns: the value, or the rule that the text breaks.
pub type Parsed<T> = std::result::Result<T, String>;

type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// The environment being read.
pub struct Vars<'a> {
    lookup: Box<Lookup<'a>>,
    faults: Vec<String>,
}

impl std::fmt::Debug for Vars<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vars").field("faults", &self.faults).finish_non_exhaustive()
    }
}

impl<'a> Vars<'a> {
    /// Reads variables through `lookup`.
    pub fn new(lookup: impl Fn(&str) -> Option<String> + 'a) -> Self {
        Self { lookup: Box::new(lookup), faults: Vec::new() }
    }

    fn read<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Parsed<T>) -> Option<Parsed<T>> {
        let text = (self.lookup)(name)?;
        let text = text.trim();
        (!text.is_empty())
            .then(|| parse(text).inspect_err(|rule| self.faults.push(format!("{name}: {rule}"))))
    }

    /// A variable that must be there. `None` only together with a fault.
    pub fn required<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Parsed<T>) -> Option<T> {
        let Some(parsed) = self.read(name, parse) else {
            self.faults.push(format!("{name}: it is not set"));
            return None;
        };
        parsed.ok()
    }

    /// A variable that may be absent. A malformed one is a fault, not an absence.
    pub fn optional<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Parsed<T>) -> Option<T> {
        self.read(name, parse).and_then(std::result::Result::ok)
    }

    /// A variable with a value for its absence.
    pub fn or_else<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Parsed<T>, absent: T) -> T {
        self.optional(name, parse).unwrap_or(absent)
    }

    /// A comma list; absent is empty, and so is an item between two commas.
    pub fn list<T>(&mut self, name: &str, parse: impl Fn(&str) -> Parsed<T>) -> Vec<T> {
        self.optional(name, |text| items(text).map(&parse).collect()).unwrap_or_default()
    }

    /// A list `region=key,region=key`. A Region named twice is a fault, and so is a key ARN of another Region.
    pub fn region_keys(&mut self, name: &str) -> BTreeMap<Region, KmsKeyId> {
        self.optional(name, |text| {
            let mut keys = BTreeMap::new();
            for item in items(text) {
                let (region, key) =
                    item.split_once('=').ok_or_else(|| format!("`{item}` is not written `region=key`"))?;
                let region: Region = id(region.trim())?;
                let key: KmsKeyId = id(key.trim())?;
                if let Some(other) = key.region().filter(|other| *other != region) {
                    return Err(format!("the key given for {region} is a key of {other}"));
                }
                if keys.insert(region.clone(), key).is_some() {
                    return Err(format!("{region} is named twice"));
                }
            }
            Ok(keys)
        })
        .unwrap_or_default()
    }

    /// Adds a fault that concerns several variables together.
    pub fn fault(&mut self, fault: impl Into<String>) {
        self.faults.push(fault.into());
    }

    /// Whether everything read so far was right.
    ///
    /// # Errors
    /// [`ErrorName::InvalidConfiguration`] naming every fault.
    pub fn finish(self) -> Result<()> {
        if self.faults.is_empty() {
            return Ok(());
        }
        Err(DrError::new(
            ErrorName::InvalidConfiguration,
            format!("reading the environment: {}", self.faults.join("; ")),
        ))
    }

    /// Builds the configuration when everything read was right.
    ///
    /// # Errors
    /// [`ErrorName::InvalidConfiguration`] naming every fault; [`ErrorName::Internal`] when `build` gives nothing
    /// although there was no fault.
    pub fn build<T>(self, build: impl FnOnce() -> Option<T>) -> Result<T> {
        self.finish()?;
        build().ok_or_else(|| {
            DrError::new(
                ErrorName::Internal,
                "reading the environment: a required variable was not asked for",
            )
        })
    }
}

/// The home Region and its metadata bucket, where an installation proves copies of another one's backups: both
/// variables, or neither.
pub fn home(vars: &mut Vars<'_>, region: &str, bucket: &str) -> Option<(Region, String)> {
    match (vars.optional(region, id), vars.optional(bucket, text)) {
        (Some(region), Some(bucket)) => Some((region, bucket)),
        (None, None) => None,
        _ => {
            vars.fault(format!("{region} and {bucket}: set both, or neither"));
            None
        }
    }
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// Any text.
pub fn text(text: &str) -> Parsed<String> {
    Ok(text.to_owned())
}

/// An identifier of [`crate::ids`].
pub fn id<T: TryFrom<String, Error = String>>(text: &str) -> Parsed<T> {
    T::try_from(text.to_owned()).map_err(|rule| format!("`{text}`: {rule}"))
}

/// A number within bounds.
pub fn number<T: FromStr + PartialOrd + Display>(range: RangeInclusive<T>) -> impl Fn(&str) -> Parsed<T> {
    move |text| match text.parse::<T>() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!("`{text}` is not a number from {} to {}", range.start(), range.end())),
    }
}

/// `true` or `false`.
pub fn boolean(text: &str) -> Parsed<bool> {
    text.parse().map_err(|_| format!("`{text}` is neither `true` nor `false`"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::ids::DatabaseId;

    fn vars(pairs: &'static [(&'static str, &'static str)]) -> Vars<'static> {
        Vars::new(move |name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let mut vars =
            vars(&[("COUNT", "eleven"), ("FLAG", "yes"), ("EMPTY", " "), ("DB", "a--b"), ("LIST", "1,x")]);
        assert_eq!(vars.required("COUNT", number(1..=10)), None);
        assert_eq!(vars.optional("FLAG", boolean), None);
        assert_eq!(vars.required("EMPTY", text), None);
        assert_eq!(vars.required::<DatabaseId>("DB", id), None);
        assert!(vars.list("LIST", number(0..=9)).is_empty());
        let error = vars.build(|| Some(())).unwrap_err();
        assert_eq!(error.name(), ErrorName::InvalidConfiguration);
        for name in ["COUNT: ", "FLAG: ", "EMPTY: it is not set", "DB: ", "LIST: "] {
            assert!(error.what().contains(name), "{name} in {error}");
        }
    }

    #[test]
    fn absent_is_not_malformed() {
        let mut vars = vars(&[("A", "3"), ("B", "")]);
        assert_eq!(vars.required("A", number(1..=10)), Some(3));
        assert_eq!(vars.or_else("B", number(1..=10), 7), 7);
        assert_eq!(vars.optional("C", boolean), None);
        assert!(vars.list("D", text).is_empty());
        vars.finish().unwrap();
    }

    #[test]
    fn bounds_include_their_ends() {
        let check = number(1..=10);
        for (text, valid) in
            [("0", false), ("1", true), ("10", true), ("11", false), ("-1", false), ("1.5", false)]
        {
            assert_eq!(check(text).is_ok(), valid, "{text}");
        }
    }

    #[test]
    fn the_home_region_and_its_bucket_come_together() {
        let region = Region::parse("us-east-1").unwrap();
        let both = &[("R", "us-east-1"), ("B", "frames")];
        let mut good = vars(both);
        assert_eq!(home(&mut good, "R", "B"), Some((region, "frames".to_owned())));
        good.finish().unwrap();
        let mut none = vars(&[]);
        assert_eq!(home(&mut none, "R", "B"), None);
        none.finish().unwrap();
        for half in [&both[..1], &both[1..]] {
            let mut half = vars(half);
            assert_eq!(home(&mut half, "R", "B"), None);
            assert_eq!(half.finish().unwrap_err().name(), ErrorName::InvalidConfiguration);
        }
    }

    #[test]
    fn keys_are_listed_by_region() {
        let arn = "arn:aws:kms:us-west-2:000000000000:key/1";
        let mut good =
            vars(&[("K", "us-west-2=arn:aws:kms:us-west-2:000000000000:key/1, eu-west-1=alias/dr,")]);
        let keys = good.region_keys("K");
        good.finish().unwrap();
        assert_eq!(keys.len(), 2);
        assert_eq!(keys[&Region::parse("us-west-2").unwrap()].as_str(), arn);
        for bad in [
            &[("K", "us-west-2")],
            &[("K", "us-west-2=alias/a,us-west-2=alias/b")],
            &[("K", "nowhere=alias/a")],
            &[("K", "eu-west-1=arn:aws:kms:us-west-2:000000000000:key/1")],
        ] {
            let mut bad = vars(bad);
            assert!(bad.region_keys("K").is_empty());
            assert_eq!(bad.finish().unwrap_err().name(), ErrorName::InvalidConfiguration);
        }
    }
}
