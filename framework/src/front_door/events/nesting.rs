//! How deep a JSON text is, which a parser is not asked: what it remembers of a depth is in proportion to that.

/// The deepest nesting that is read: as deep as serde_json reads values.
pub(super) const DEEPEST: usize = 128;

/// Whether no part of it is deeper than any that is read.
pub(super) fn is_shallow(document: &[u8]) -> bool {
    // Most have so few brackets that it does not matter where.
    if memchr::memchr2_iter(b'{', b'[', document).take(DEEPEST + 1).count() <= DEEPEST {
        return true;
    }
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(byte) = document.get(at) {
        at += 1;
        match byte {
            b'"' => at = after_text(document, at),
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEEPEST {
            return false;
        }
    }
    true
}

/// Where a text that begins at `at`, after its quote, has ended.
fn after_text(document: &[u8], mut at: usize) -> usize {
    while let Some(found) = document.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += found + 1;
        if document[at - 1] == b'"' {
            return at;
        }
        // What is escaped.
        at += 1;
    }
    document.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_brackets_outside_of_texts_are_depth() {
        let (opened, closed) = ("[".repeat(DEEPEST), "]".repeat(DEEPEST));
        for (document, shallow) in [
            (format!("{opened}{closed}"), true),
            (format!("{opened}[]{closed}"), false),
            (format!("[{opened}"), false),
            (format!("[\"{opened}[\"]"), true),
            (format!("[\"\\\"{opened}[\"]"), true),
            (format!("[\"\\\\\",{opened}{closed}]"), false),
            (format!("\"{opened}[\\"), true),
            (format!("\"{opened}["), true),
            ("[],".repeat(1000), true),
            (format!("{}{opened}{{", "\"[[[\",".repeat(100)), false),
        ] {
            assert_eq!(is_shallow(document.as_bytes()), shallow, "{document}");
        }
    }
}
