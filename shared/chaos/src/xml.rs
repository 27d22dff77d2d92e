//! An XML document as a tree of elements and texts: what the answers of AWS's query services are.
//!
//! Strict: what is cut off, ill-formed or too large is an error, because a list that lost its end must not be taken for
//! a shorter one. Attributes and comments are passed over; there are no document types and so no entities but XML's own.

use std::fmt;

use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::Event;

/// Elements within one another: AWS's answers have fewer than ten.
const DEEPEST: usize = 32;
/// Elements of a document: fifty instances have some ten thousand.
const MOST_ELEMENTS: usize = 200_000;

/// An element.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Element {
    name: String,
    text: String,
    children: Vec<Element>,
}

/// Why a document could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// It is no XML, or not UTF-8.
    Syntax,
    /// It ends before its root does.
    CutOff,
    /// It goes on after its root.
    Trailing,
    /// It has a document type.
    DocumentType,
    /// It names an entity that XML does not have by itself.
    Entity,
    /// It is nested too deeply.
    TooDeep,
    /// It has too many elements.
    TooLarge,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syntax => "it is no XML",
            Self::CutOff => "it is cut off",
            Self::Trailing => "it goes on after its end",
            Self::DocumentType => "it has a document type",
            Self::Entity => "it has an entity that is not known",
            Self::TooDeep => "it is nested too deeply",
            Self::TooLarge => "it has too many elements",
        })
    }
}

impl std::error::Error for Malformed {}

impl Element {
    /// Reads a document. Names lose their prefixes.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let document = std::str::from_utf8(bytes).map_err(|_| Malformed::Syntax)?;
        let mut reader = Reader::from_str(document);
        reader.config_mut().check_end_names = true;
        let mut open: Vec<Self> = Vec::new();
        let mut root: Option<Self> = None;
        let mut count = 0_usize;
        loop {
            let event = reader.read_event().map_err(|_| Malformed::Syntax)?;
            match event {
                Event::Start(start) | Event::Empty(start) if root.is_some() => {
                    drop(start);
                    return Err(Malformed::Trailing);
                }
                Event::Start(start) => {
                    if open.len() == DEEPEST {
                        return Err(Malformed::TooDeep);
                    }
                    open.push(Self::named(start.local_name().as_ref(), &mut count)?);
                }
                Event::Empty(start) => {
                    let element = Self::named(start.local_name().as_ref(), &mut count)?;
                    Self::close(element, &mut open, &mut root);
                }
                // The reader has checked that it is the end of the element that was opened last.
                Event::End(_) => {
                    let element = open.pop().ok_or(Malformed::Syntax)?;
                    Self::close(element, &mut open, &mut root);
                }
                Event::Text(text) => {
                    let text = text.xml_content().map_err(|_| Malformed::Syntax)?;
                    Self::say(&text, &mut open, root.is_some())?;
                }
                Event::CData(text) => {
                    let text = text.xml_content().map_err(|_| Malformed::Syntax)?;
                    Self::say(&text, &mut open, root.is_some())?;
                }
                Event::GeneralRef(reference) => {
                    let name = reference.decode().map_err(|_| Malformed::Syntax)?;
                    let character = reference.resolve_char_ref().map_err(|_| Malformed::Entity)?;
                    let text = match character {
                        Some(character) => character.to_string(),
                        None => resolve_xml_entity(&name).ok_or(Malformed::Entity)?.to_owned(),
                    };
                    Self::say(&text, &mut open, root.is_some())?;
                }
                Event::DocType(_) => return Err(Malformed::DocumentType),
                Event::Decl(_) | Event::Comment(_) | Event::PI(_) => {}
                Event::Eof if open.is_empty() => return root.ok_or(Malformed::CutOff),
                Event::Eof => return Err(Malformed::CutOff),
            }
        }
    }

    fn named(name: &[u8], count: &mut usize) -> Result<Self, Malformed> {
        *count += 1;
        if *count > MOST_ELEMENTS {
            return Err(Malformed::TooLarge);
        }
        let name = std::str::from_utf8(name).map_err(|_| Malformed::Syntax)?;
        Ok(Self { name: name.to_owned(), ..Self::default() })
    }

    fn close(element: Self, open: &mut [Self], root: &mut Option<Self>) {
        match open.last_mut() {
            Some(parent) => parent.children.push(element),
            None => *root = Some(element),
        }
    }

    fn say(text: &str, open: &mut [Self], over: bool) -> Result<(), Malformed> {
        match open.last_mut() {
            Some(element) => element.text.push_str(text),
            None if text.trim().is_empty() => {}
            None => return Err(if over { Malformed::Trailing } else { Malformed::Syntax }),
        }
        Ok(())
    }

    /// Its name, without a prefix.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The first element of that name directly in it.
    pub(crate) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The text at the end of a path of names; `None` where there is no such element or no text in it.
    pub(crate) fn text(&self, path: &[&str]) -> Option<&str> {
        let end = path.iter().try_fold(self, |at, name| at.child(name))?;
        Some(end.text.trim()).filter(|text| !text.is_empty())
    }

    /// The elements called `item` in the element called `list`; none where there is no such list.
    pub(crate) fn items<'a>(&'a self, list: &str, item: &str) -> impl Iterator<Item = &'a Self> {
        let item = item.to_owned();
        let children = self.child(list).map(|list| list.children.as_slice()).unwrap_or_default();
        children.iter().filter(move |child| child.name == item)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_document_becomes_a_tree() {
        let document = "\u{feff}<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!-- c --><a:R xmlns:a=\"urn:x\" b=\"c\">\n  <list>\
            <item><k>1 &lt; 2 &amp;&#x26;&#38; </k></item><other/><item><k><![CDATA[<&>]]></k></item></list><e/></a:R>\n";
        let root = Element::parse(document.as_bytes()).unwrap();
        assert_eq!(root.name(), "R");
        let found: Vec<Option<&str>> = root.items("list", "item").map(|item| item.text(&["k"])).collect();
        assert_eq!(found, [Some("1 < 2 &&&"), Some("<&>")]);
        assert_eq!(root.text(&["e"]), None);
        assert_eq!(root.text(&["list", "nothing"]), None);
        assert_eq!(root.items("nothing", "item").count(), 0);
    }

    #[test]
    fn what_is_no_whole_document_is_refused() {
        let bomb = "<!DOCTYPE r [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]><r>&b;</r>";
        let file = "<!DOCTYPE r [<!ENTITY f SYSTEM \"file:///etc/passwd\">]><r>&f;</r>";
        for (document, why) in [
            ("", Malformed::CutOff),
            ("   ", Malformed::CutOff),
            ("<?xml version=\"1.0\"?>", Malformed::CutOff),
            ("<r>", Malformed::CutOff),
            ("<r><a>1</a><a>2</a>", Malformed::CutOff),
            ("<r><a>1</a></r", Malformed::Syntax),
            ("<r><a>1</r></a>", Malformed::Syntax),
            ("</r>", Malformed::Syntax),
            ("{\"a\": 1}", Malformed::Syntax),
            ("<r/>text", Malformed::Trailing),
            ("<r/><r/>", Malformed::Trailing),
            ("<r></r><r>", Malformed::Trailing),
            ("<r>&nbsp;</r>", Malformed::Entity),
            ("<r>&a;</r>", Malformed::Entity),
            ("<r>&#xD800;</r>", Malformed::Entity),
            ("<r>&#0;</r>", Malformed::Entity),
            ("<r>&amp</r>", Malformed::Syntax),
            (bomb, Malformed::DocumentType),
            (file, Malformed::DocumentType),
        ] {
            assert_eq!(Element::parse(document.as_bytes()).unwrap_err(), why, "{document}");
        }
        assert_eq!(Element::parse(b"<r>\xff</r>").unwrap_err(), Malformed::Syntax);
    }

    #[test]
    fn every_prefix_of_an_answer_is_refused() {
        let document = "<?xml version=\"1.0\"?><R><set><item><id>i-1</id></item><item/></set></R>";
        for end in 0..document.len() {
            assert!(Element::parse(&document.as_bytes()[..end]).is_err(), "{}", &document[..end]);
        }
        assert!(Element::parse(document.as_bytes()).is_ok());
    }

    #[test]
    fn depth_and_size_have_their_bounds() {
        let nested = |deep: usize| format!("{}{}", "<a>".repeat(deep), "</a>".repeat(deep));
        assert!(Element::parse(nested(DEEPEST).as_bytes()).is_ok());
        assert_eq!(Element::parse(nested(DEEPEST + 1).as_bytes()).unwrap_err(), Malformed::TooDeep);
        assert_eq!(Element::parse("<a>".repeat(1_000_000).as_bytes()).unwrap_err(), Malformed::TooDeep);
        let many = |count: usize| format!("<r>{}</r>", "<a/>".repeat(count));
        assert!(Element::parse(many(MOST_ELEMENTS - 1).as_bytes()).is_ok());
        assert_eq!(Element::parse(many(MOST_ELEMENTS).as_bytes()).unwrap_err(), Malformed::TooLarge);
    }
}
