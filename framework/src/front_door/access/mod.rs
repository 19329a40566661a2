//! Who may enter: bearer tokens, what each may do, and how much.
//!
//! Where no token is set, everybody may do everything. With tokens every request to the front door's listener needs one, except for its
//! description: `GET`, `HEAD` and `OPTIONS` the verb *read*, everything else *write*. The tokens' file is read again when it has changed, so that tokens come and go without a restart.

mod caller;
mod file;

pub use caller::Caller;
pub use file::check_tokens;

use super::problem::{Problem, ProblemCode};
use crate::{Error, config::ConfigError, config::FrontDoorConfig};
use actix_web::{
    HttpMessage, HttpRequest,
    http::header::{AUTHORIZATION, HeaderMap},
};
use caller::Grant;
use file::TokenFile;
use sha2::{Digest, Sha256};
use std::sync::{Arc, Mutex, PoisonError};
use subtle::ConstantTimeEq;

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// It stores tasks.
    Write,
    /// It asks for what became of them, or for what handlers made of them.
    Read,
}

/// A token's SHA-256.
type Hash = [u8; 32];

/// The tokens in force.
#[derive(Debug)]
pub(super) struct Access {
    /// From the setting of one token.
    own: Option<(Hash, Arc<Caller>)>,
    file: Option<Mutex<TokenFile>>,
}

impl Access {
    /// Reads the tokens; an error says what is wrong with them.
    pub(super) fn new(config: &FrontDoorConfig) -> Result<Self, Error> {
        let own = config
            .token
            .as_deref()
            .map(str::trim)
            .map(|token| (hash(token.as_bytes()), Arc::new(Caller::of_everything("token"))));
        let file = match &config.tokens_file {
            None => None,
            Some(path) => Some(Mutex::new(TokenFile::read(path).map_err(ConfigError)?)),
        };
        Ok(Self { own, file })
    }

    /// Whether everybody may do everything.
    fn is_open(&self) -> bool {
        self.own.is_none() && self.file.is_none()
    }

    /// Who sends a request with these headers; `None` where nobody has to say so.
    pub(super) fn enter(&self, headers: &HeaderMap, verb: Verb) -> Result<Option<Arc<Caller>>, Problem> {
        if self.is_open() {
            return Ok(None);
        }
        let caller = self.caller(headers)?;
        caller.may(verb)?;
        Ok(Some(caller))
    }

    /// Looks whether the tokens have changed, for requests that go on for long: who has no token any more hears of it.
    pub(super) fn look(&self) {
        if let Some(file) = &self.file {
            file.lock().unwrap_or_else(PoisonError::into_inner).tokens();
        }
    }

    fn caller(&self, headers: &HeaderMap) -> Result<Arc<Caller>, Problem> {
        let unauthorized = |detail| Err(Problem::new(ProblemCode::Unauthorized, detail));
        let mut given = headers.get_all(AUTHORIZATION);
        let token = match (given.next(), given.next()) {
            (None, _) => return unauthorized("send a token, as Authorization: Bearer …"),
            (Some(value), None) => value
                .as_bytes()
                .split_at_checked(7)
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer ")),
            (Some(_), Some(_)) => None,
        };
        let Some((_, token)) = token else {
            return unauthorized("send one Authorization header, with the scheme Bearer");
        };
        let hash = hash(token.trim_ascii());
        // All are looked at, whichever it is.
        let mut found = None;
        let mut look = |known: &Hash, caller: &Arc<Caller>| {
            if bool::from(known.ct_eq(&hash)) {
                found = Some(caller.clone());
            }
        };
        if let Some((known, caller)) = &self.own {
            look(known, caller);
        }
        if let Some(file) = &self.file {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            file.tokens().iter().for_each(|(known, caller)| look(known, caller));
        }
        found.map_or_else(|| unauthorized("this token is not known here"), Ok)
    }
}

/// Whether a route beside the front door's own may show what belongs to `key`, or, where that is `None`, to any key.
pub fn may_read(request: &HttpRequest, key: Option<&[u8]>) -> Result<(), Problem> {
    match (request.extensions().get::<Arc<Caller>>(), key) {
        (None, _) => Ok(()),
        (Some(caller), Some(key)) => caller.may_use(key),
        (Some(caller), None) => caller.may_use_all(),
    }
}

fn hash(token: &[u8]) -> Hash {
    Sha256::digest(token).into()
}
