//! The members of a JSON object as they stand in its text.
//!
//! Most events are an object whose names and texts have no escapes: what those are is seen at a glance. A number, an array or an
//! object among the values is serde_json's to read. Anything else is none of this file's business: the whole text is read by serde_json,
//! which also says what is wrong with it.

use memchr::{memchr, memchr2};
use serde_json::value::RawValue;

/// Gives each member's name and value to `take`, a text with its quotes. `None`: the text has to be read in another way, whatever was
/// given of it.
pub(super) fn for_each<'a>(text: &'a str, mut take: impl FnMut(&'a str, &'a str)) -> Option<()> {
    let mut rest = Rest(text);
    rest.skip(b'{')?;
    if rest.skip(b'}').is_none() {
        loop {
            let name = rest.text()?;
            rest.skip(b':')?;
            take(name, rest.value()?);
            if rest.skip(b',').is_none() {
                rest.skip(b'}')?;
                break;
            }
        }
    }
    rest.peek().is_none().then_some(())
}

/// What was not looked at yet.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    /// What comes after white space.
    fn peek(&mut self) -> Option<u8> {
        self.0 = self.0.trim_start_matches([' ', '\n', '\r', '\t']);
        self.0.as_bytes().first().copied()
    }

    fn skip(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.0 = &self.0[1..])
    }

    fn take(&mut self, len: usize) -> &'a str {
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        taken
    }

    /// A text without escapes, and without what has to be escaped.
    fn text(&mut self) -> Option<&'a str> {
        if self.peek()? != b'"' {
            return None;
        }
        let inner = &self.0.as_bytes()[1..];
        let len = memchr2(b'"', b'\\', inner)?;
        let is_plain =
            inner[len] == b'"' && inner[..len].iter().fold(true, |plain, byte| plain & (*byte >= b' '));
        is_plain.then(|| self.take(len + 2))
    }

    fn value(&mut self) -> Option<&'a str> {
        match self.peek()? {
            b'"' => self.text(),
            _ => {
                let mut values = serde_json::Deserializer::from_str(self.0).into_iter::<&RawValue>();
                values.next()?.ok()?;
                let len = values.byte_offset();
                Some(self.take(len))
            }
        }
    }
}

/// Whether anything is escaped in what is between a text's quotes.
pub(super) fn has_escapes(inner: &str) -> bool {
    memchr(b'\\', inner.as_bytes()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn members(text: &str) -> Option<Vec<(&str, &str)>> {
        let mut members = Vec::new();
        for_each(text, |name, value| members.push((name, value))).map(|()| members)
    }

    /// What serde_json finds, each name once.
    fn by_serde(text: &str) -> Option<BTreeMap<String, &str>> {
        let raw: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
        Some(raw.into_iter().map(|(name, value)| (name, value.get())).collect())
    }

    fn is_the_same(text: &str) {
        let Some(members) = members(text) else { return };
        let members: BTreeMap<_, _> =
            members.into_iter().map(|(name, value)| (name[1..name.len() - 1].to_owned(), value)).collect();
        assert_eq!(Some(members), by_serde(text), "{text}");
    }

    #[test]
    fn plain_members_are_found_as_they_stand() {
        let text = " {\"a\" :\"x\u{e9}\\u007f\" , \"b\":[1, {\"c\":\"\\\"\"}],\n\"d\":-1.5e3,\"e\":true,\"f\":null, \"g\": {}}\r\n";
        assert_eq!(members(text), None, "a text with an escape");
        let text = text.replace("\\u007f", "\u{7f}");
        let expected = [
            ("\"a\"", "\"x\u{e9}\u{7f}\""),
            ("\"b\"", "[1, {\"c\":\"\\\"\"}]"),
            ("\"d\"", "-1.5e3"),
            ("\"e\"", "true"),
            ("\"f\"", "null"),
            ("\"g\"", "{}"),
        ];
        assert_eq!(members(&text), Some(expected.to_vec()));
        assert_eq!(members(" { } "), Some(Vec::new()));
    }

    #[test]
    fn what_is_not_plain_or_not_json_is_left_to_others() {
        for text in [
            "",
            "{",
            "[]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\":1 \"b\":2}",
            "{,\"a\":1}",
            "{\"a\":1}}",
            "{\"a\":1} x",
            "{a:1}",
            "{\"a\":\"1}",
            "{\"a\":01}",
            "{\"a\":1x}",
            "{\"a\":tru}",
            "{\"a\":[}",
            "{\"a\":\"\n\"}",
            "{\"a\":\"\\u0041\"}",
            "{\"\\u0061\":1}",
            "{\"a\":\"\\q\"}",
            "\u{a0}{\"a\":1}",
            "{\"a\":1}\u{b}",
        ] {
            assert_eq!(members(text), None, "{text:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Whatever somebody sends: it is what serde_json finds, or nothing.
        #[test]
        fn it_is_what_serde_json_finds(
            pairs in prop::collection::btree_map("[a-c\u{e9}]{0,3}", "[\"{}\\[\\]:,\\\\ \n\u{1}a-c0-9.+-]{0,12}|true|null|\"[ -!#-~\u{e9}]{0,8}\"|[0-9]{1,3}", 0..5),
            cut in any::<prop::sample::Index>(), put in prop::option::of("[\"{}:,\\\\ \n0]")
        ) {
            let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
            let mut text = format!("{{{}}}", pairs.join(","));
            is_the_same(&text);
            if let Some(put) = put {
                let at = cut.index(text.len() + 1);
                if text.is_char_boundary(at) {
                    text.insert_str(at, &put);
                }
            }
            is_the_same(&text);
        }
    }
}
