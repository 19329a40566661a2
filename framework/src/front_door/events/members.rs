//! The members of a JSON object as they stand in its text, and the objects of an array.
//!
//! Most of an event are texts without escapes, and what those are is seen at a glance: any other value is serde_json's to read. What is
//! no object is none of this file's business: the whole text is read by serde_json then, which also says what is wrong with it.

use memchr::{memchr, memchr2};
use serde_json::value::RawValue;

/// Gives each member's name and value to `take`, a text with its quotes. `None`: the text has to be read in another way, whatever was
/// given of it.
pub(super) fn for_each<'a>(text: &'a str, take: impl FnMut(&'a str, &'a str)) -> Option<()> {
    let mut rest = Rest(text);
    rest.object(take)?;
    rest.is_at_end()
}

/// Gives each object of an array to `take`, as it stands in the text; ends where that fails. `None`: as above.
pub(super) fn for_each_object<'a, E>(
    text: &'a str,
    mut take: impl FnMut(&'a str) -> Result<(), E>,
) -> Option<Result<(), E>> {
    let mut rest = Rest(text);
    rest.skip(b'[')?;
    if rest.skip(b']').is_none() {
        loop {
            rest.peek()?;
            let before = rest.0;
            rest.object(|_, _| ())?;
            if let Err(error) = take(&before[..before.len() - rest.0.len()]) {
                return Some(Err(error));
            }
            if rest.skip(b',').is_none() {
                rest.skip(b']')?;
                break;
            }
        }
    }
    rest.is_at_end().map(Ok)
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

    fn text(&mut self) -> Option<&'a str> {
        if self.peek()? != b'"' {
            return None;
        }
        let inner = &self.0.as_bytes()[1..];
        let len = memchr2(b'"', b'\\', inner)?;
        let has_controls = inner[..len].iter().fold(false, |has, byte| has | (*byte < b' '));
        if inner[len] == b'"' && !has_controls { Some(self.take(len + 2)) } else { self.raw() }
    }

    /// A value as serde_json finds it.
    fn raw(&mut self) -> Option<&'a str> {
        let mut values = serde_json::Deserializer::from_str(self.0).into_iter::<&RawValue>();
        values.next()?.ok()?;
        let len = values.byte_offset();
        Some(self.take(len))
    }

    fn object(&mut self, mut take: impl FnMut(&'a str, &'a str)) -> Option<()> {
        self.skip(b'{')?;
        if self.skip(b'}').is_some() {
            return Some(());
        }
        loop {
            let name = self.text()?;
            self.skip(b':')?;
            take(name, self.value()?);
            if self.skip(b',').is_none() {
                return self.skip(b'}');
            }
        }
    }

    fn is_at_end(&mut self) -> Option<()> {
        self.peek().is_none().then_some(())
    }

    fn value(&mut self) -> Option<&'a str> {
        if self.peek()? == b'"' { self.text() } else { self.raw() }
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

    fn objects(text: &str) -> Option<Vec<&str>> {
        let mut objects = Vec::new();
        let found = for_each_object(text, |object| {
            objects.push(object);
            Ok::<_, ()>(())
        });
        found.map(|_| objects)
    }

    fn is_the_same(text: &str) {
        if let Some(members) = members(text) {
            let members: BTreeMap<String, &str> = members
                .into_iter()
                .map(|(name, value)| (serde_json::from_str(name).unwrap(), value))
                .collect();
            assert_eq!(Some(members), by_serde(text), "{text}");
        }
        if let Some(objects) = objects(text) {
            let raw: Vec<&RawValue> = serde_json::from_str(text).unwrap();
            assert_eq!(objects, raw.iter().map(|raw| raw.get()).collect::<Vec<_>>(), "{text}");
        }
    }

    #[test]
    fn members_are_found_as_they_stand() {
        let text = " {\"a\" :\"x\u{e9}\u{7f}\" , \"b\":[1, {\"c\":\"\\\"\"}],\n\"d\":-1.5e3,\"e\":true,\"\\u0066\":null, \"g\": {},\"h\":\"\\\"\"}\r\n";
        let expected = [
            ("\"a\"", "\"x\u{e9}\u{7f}\""),
            ("\"b\"", "[1, {\"c\":\"\\\"\"}]"),
            ("\"d\"", "-1.5e3"),
            ("\"e\"", "true"),
            ("\"\\u0066\"", "null"),
            ("\"g\"", "{}"),
            ("\"h\"", "\"\\\"\""),
        ];
        assert_eq!(members(text), Some(expected.to_vec()));
        assert_eq!(members(" { } "), Some(Vec::new()));
        assert_eq!(objects(" [ ] "), Some(Vec::new()));
        assert_eq!(objects(" [ {\"a\":[{}] } ,\n{}]\n"), Some(vec!["{\"a\":[{}] }", "{}"]));
    }

    #[test]
    fn what_is_no_object_is_left_to_others() {
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
            "{\"a\":\"\\q\"}",
            "\u{a0}{\"a\":1}",
            "{\"a\":1}\u{b}",
        ] {
            assert_eq!(members(text), None, "{text:?}");
            assert_eq!(objects(&format!("[{text}]")).filter(|_| !text.is_empty()), None, "{text:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Whatever somebody sends: it is what serde_json finds, or nothing.
        #[test]
        fn it_is_what_serde_json_finds(
            pairs in prop::collection::btree_map("[a-c\u{e9}]{0,3}", "[\"{}\\[\\]:,\\\\ \n\u{1}a-c0-9.+-]{0,12}|true|null|\"[ -!#-~\u{e9}]{0,8}\"|[0-9]{1,3}", 0..5),
            in_array in any::<bool>(), cut in any::<prop::sample::Index>(), put in prop::option::of("[\"{}:,\\\\ \n0]")
        ) {
            let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
            let object = format!("{{{}}}", pairs.join(","));
            is_the_same(&object);
            let mut text = if in_array { format!("[{object},{{}} , {object}]") } else { object };
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
