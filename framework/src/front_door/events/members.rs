//! The members of a JSON object and the elements of an array, as they stand in the text.
//!
//! Most of an event are texts without escapes, and what those are is seen at a glance: any other value is serde_json's to read. It also says
//! what is wrong with a text, where something is. It is shown nothing that is too deep.

use super::nesting::{DEEPEST, is_shallow};
use memchr::{memchr, memchr2};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

/// White space (RFC 8259, 2).
const WHITE: [char; 4] = [' ', '\n', '\r', '\t'];

/// Gives each member's name and value to `take`, a text with its quotes. What was given of a text that is no object counts for nothing.
pub(super) fn for_each<'a>(text: &'a str, take: impl FnMut(&'a str, &'a str)) -> Result<(), String> {
    let mut rest = Rest::new(text);
    rest.object(take).and_then(|()| rest.is_at_end()).ok_or_else(|| mistake_in(text, '{'))
}

/// Gives each element to `take`, until that fails. What was given of a text that is no array counts for nothing.
pub(super) fn for_each_element<'a, E>(
    text: &'a str,
    take: impl FnMut(&'a str) -> Result<(), E>,
) -> Result<Result<(), E>, String> {
    let mut rest = Rest::new(text);
    match rest.array(take) {
        Some(Ok(())) => rest.is_at_end().map(Ok).ok_or_else(|| mistake_in(text, '[')),
        Some(failed) => Ok(failed),
        None => Err(mistake_in(text, '[')),
    }
}

/// Why a text is not what begins with `first`.
fn mistake_in(text: &str, first: char) -> String {
    match text.trim_start_matches(WHITE).chars().next() {
        None => "it is empty".into(),
        Some(found) if found != first => format!("it does not begin with {first:?}"),
        Some(_) if !is_shallow(text.as_bytes()) => format!("it is nested deeper than {DEEPEST} levels"),
        Some(_) => match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => "it is something else".into(),
            Err(error) => error.to_string(),
        },
    }
}

/// A text, and what of it was not looked at yet.
struct Rest<'a> {
    whole: &'a str,
    rest: &'a str,
    is_shallow: bool,
}

impl<'a> Rest<'a> {
    fn new(whole: &'a str) -> Self {
        Self { whole, rest: whole, is_shallow: false }
    }

    /// What comes after white space.
    fn peek(&mut self) -> Option<u8> {
        self.rest = self.rest.trim_start_matches(WHITE);
        self.rest.as_bytes().first().copied()
    }

    fn skip(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.rest = &self.rest[1..])
    }

    fn take(&mut self, len: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        taken
    }

    fn text(&mut self) -> Option<&'a str> {
        if self.peek()? != b'"' {
            return None;
        }
        let inner = &self.rest.as_bytes()[1..];
        let len = memchr2(b'"', b'\\', inner)?;
        let has_controls = inner[..len].iter().fold(false, |has, byte| has | (*byte < b' '));
        if inner[len] == b'"' && !has_controls { Some(self.take(len + 2)) } else { self.raw() }
    }

    /// A value as serde_json finds it.
    fn raw(&mut self) -> Option<&'a str> {
        if self.rest.starts_with(['{', '[']) && !self.is_shallow {
            self.is_shallow = is_shallow(self.whole.as_bytes());
            self.is_shallow.then_some(())?;
        }
        let mut values = serde_json::Deserializer::from_str(self.rest).into_iter::<&RawValue>();
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

    fn array<E>(&mut self, mut take: impl FnMut(&'a str) -> Result<(), E>) -> Option<Result<(), E>> {
        self.skip(b'[')?;
        if self.skip(b']').is_some() {
            return Some(Ok(()));
        }
        loop {
            let is_object = self.peek()? == b'{';
            let before = self.rest;
            if is_object { self.object(|_, _| ()) } else { self.value().map(drop) }?;
            if let Err(error) = take(&before[..before.len() - self.rest.len()]) {
                return Some(Err(error));
            }
            if self.skip(b',').is_none() {
                return self.skip(b']').map(Ok);
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
        for_each(text, |name, value| members.push((name, value))).ok().map(|()| members)
    }

    /// What serde_json finds, each name once.
    fn by_serde(text: &str) -> Option<BTreeMap<String, &str>> {
        let raw: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
        Some(raw.into_iter().map(|(name, value)| (name, value.get())).collect())
    }

    fn elements(text: &str) -> Option<Vec<&str>> {
        let mut elements = Vec::new();
        let found = for_each_element(text, |element| {
            elements.push(element);
            Ok::<_, ()>(())
        });
        found.ok().map(|_| elements)
    }

    fn is_the_same(text: &str) {
        let members = members(text).map(|members| -> BTreeMap<String, &str> {
            members.into_iter().map(|(name, value)| (serde_json::from_str(name).unwrap(), value)).collect()
        });
        assert_eq!(members, by_serde(text), "{text}");
        let raw: Option<Vec<&RawValue>> = serde_json::from_str(text).ok();
        assert_eq!(elements(text), raw.map(|raw| raw.iter().map(|raw| raw.get()).collect()), "{text}");
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
        assert_eq!(elements(" [ ] "), Some(Vec::new()));
        assert_eq!(
            elements(" [ {\"a\":[{}] } ,\n{}, 1,\"\\n\"]\n"),
            Some(vec!["{\"a\":[{}] }", "{}", "1", "\"\\n\""])
        );
        let stopped = for_each_element("[1,2", |element| if element == "1" { Err(element) } else { Ok(()) });
        assert_eq!(stopped, Ok(Err("1")));
    }

    #[test]
    fn what_is_neither_is_refused() {
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
            assert_eq!(elements(&format!("[{text}")), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_too_deep_is_refused_and_brackets_in_texts_are_no_depth() {
        let (opened, closed) = ("[".repeat(DEEPEST), "]".repeat(DEEPEST));
        let why = format!("it is nested deeper than {DEEPEST} levels");
        let object = format!("{{\"a\":1,\"b\":{opened}{closed}}}");
        assert_eq!(for_each(&object, |_, _| ()), Err(why.clone()));
        let array = format!("[{{\"a\":1}},{{\"b\":{opened}");
        assert_eq!(for_each_element(&array, |_| Ok::<_, ()>(())), Err(why));
        let text = format!("{{\"a\":\"{opened}\",\"b\":[]}}");
        assert_eq!(members(&text).map(|members| members.len()), Some(2));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Whatever somebody sends.
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
