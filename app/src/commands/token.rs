//! `partita token`

use crate::cli::{TokenArgs, VerbArg};
use sha2::{Digest, Sha256};
use std::{fmt::Write as _, io::Write as _, process::ExitCode};

/// Makes a token, and shows it once with what goes into the file of tokens.
pub(super) fn run(args: &TokenArgs) -> anyhow::Result<ExitCode> {
    // 256 bits: nothing that could be guessed, so a plain hash of it gives nothing away.
    let token = format!("partita_{}", hex::encode(rand::random::<[u8; 32]>()));
    let entry = entry(args, &token);
    partita::front_door::check_tokens(&entry)?;
    let shown = format!(
        "# The token, for whoever is to use it. It is not stored anywhere.\n#   Authorization: Bearer {token}\n\
         # Its entry for front_door.tokens_file:\n{entry}"
    );
    std::io::stdout().lock().write_all(shown.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn entry(args: &TokenArgs, token: &str) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let list = |texts: Vec<String>| format!("[{}]", texts.join(", "));
    let mut entry = format!("[[token]]\nname = {}\n", quoted(&args.name));
    // Writing to a String cannot fail.
    let _ = writeln!(entry, "sha256 = \"{}\"", hex::encode(Sha256::digest(token.as_bytes())));
    if !args.keys.is_empty() {
        let _ = writeln!(entry, "keys = {}", list(args.keys.iter().map(|key| quoted(key)).collect()));
    }
    let verb = |verb: &VerbArg| quoted(if *verb == VerbArg::Write { "write" } else { "read" });
    let _ = writeln!(entry, "verbs = {}", list(args.verbs.iter().map(verb).collect()));
    if let Some(tasks) = args.tasks_per_second {
        let _ = writeln!(entry, "tasks_per_second = {tasks}");
    }
    if let Some(bytes) = args.bytes_per_second {
        let _ = writeln!(entry, "bytes_per_second = {}", bytes.as_u64());
    }
    entry
}
