//! Signatures by which a receiver knows that a delivery is from here: Standard Webhooks 1.0.0, symmetric
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

const PREFIX: &str = "whsec_";
/// The specification asks for 24 to 64 bytes.
const LENGTHS: std::ops::RangeInclusive<usize> = 24..=64;

/// What signatures are made with: several while one is replaced by another.
#[derive(Clone)]
pub(super) struct Secrets(Vec<Vec<u8>>);

impl Secrets {
    /// Reads secrets that are separated by spaces. The error does not repeat them.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let one = |word: &str| {
            let bytes = word.strip_prefix(PREFIX).and_then(|base64| BASE64_STANDARD.decode(base64).ok());
            bytes.filter(|bytes| LENGTHS.contains(&bytes.len())).ok_or_else(|| {
                format!("a secret is {PREFIX} and 24 to 64 bytes in base64; `echo {PREFIX}$(openssl rand -base64 32)` makes one")
            })
        };
        text.split_whitespace().map(one).collect::<Result<_, _>>().map(Self)
    }

    /// The value of `webhook-signature`; `None` where there is no secret.
    pub(super) fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> Option<String> {
        let signatures = self.0.iter().filter_map(|secret| {
            let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
            mac.update(format!("{id}.{timestamp}.").as_bytes());
            mac.update(body);
            Some(format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes())))
        });
        let signatures: Vec<_> = signatures.collect();
        (!signatures.is_empty()).then(|| signatures.join(" "))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the reference implementations.
    #[test]
    fn a_signature_is_the_one_of_the_specification() {
        let secrets = Secrets::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature =
            secrets.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature.as_deref(), Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
    }

    #[test]
    fn every_secret_signs_and_what_is_none_is_refused_without_being_shown() {
        let two =
            Secrets::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw  whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSx")
                .unwrap();
        assert_eq!(two.sign("id", 1, b"").unwrap().split(' ').count(), 2);
        assert_eq!(Secrets::parse("").unwrap().sign("id", 1, b""), None);
        for wrong in ["hunter2", "whsec_hunter2", "whsec_aHVudGVyMg=="] {
            let error = Secrets::parse(wrong).unwrap_err();
            assert!(!error.contains("unter"), "{error}");
        }
        assert_eq!(format!("{two:?}"), "2 secrets");
    }
}
