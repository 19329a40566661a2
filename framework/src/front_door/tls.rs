//! TLS: the certificate and its key, read again when their files have changed, and whose certificates clients must have.

use super::stamp::{LOOK, Stamp};
use crate::{Error, config::ConfigError, config::FrontDoorConfig};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

/// What HTTP/2 is called where it is negotiated (RFC 9113, 3.2).
pub(super) const HTTP2: &[u8] = b"h2";

/// What the listener speaks TLS with; `None` where it does not.
pub(super) fn server_config(config: &FrontDoorConfig) -> Result<Option<ServerConfig>, Error> {
    let (certificate, key) = match (&config.tls_certificate, &config.tls_key, &config.tls_client_ca) {
        (Some(certificate), Some(key), _) => (certificate, key),
        (None, None, None) => return Ok(None),
        _ => {
            let what = "TLS needs both front_door.tls_certificate and front_door.tls_key\nhelp: set both, or none of the settings of TLS";
            return Err(Error::Config(ConfigError(what.into())));
        }
    };
    let provider = Arc::new(ring::default_provider());
    let resolver = Renewed::new(certificate, key, provider.clone()).map_err(ConfigError)?;
    let wrong = |error: &dyn std::fmt::Display| {
        Error::Config(ConfigError(format!("front_door.tls_client_ca: {error}")))
    };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&error))?;
    let builder = match &config.tls_client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(roots(path).map_err(|error| wrong(&error))?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| wrong(&error))?)
        }
    };
    let mut tls = builder.with_cert_resolver(Arc::new(resolver));
    tls.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
    Ok(Some(tls))
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| named(&error))? {
        let certificate = certificate.map_err(|error| named(&error))?;
        roots.add(certificate).map_err(|error| named(&error))?;
    }
    if roots.is_empty() { Err(named(&"no certificate is in it")) } else { Ok(roots) }
}

/// A certificate that is renewed by whoever writes its files.
#[derive(Debug)]
struct Renewed {
    certificate: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    certified: Arc<CertifiedKey>,
    /// `None`: they could not be looked at.
    stamps: Option<[Stamp; 2]>,
    looked: Instant,
}

impl Renewed {
    fn new(certificate: &Path, key: &Path, provider: Arc<CryptoProvider>) -> Result<Self, String> {
        let stamps = stamps(certificate, key).ok();
        let certified = Arc::new(read(certificate, key, &provider)?);
        let state = Mutex::new(State { certified, stamps, looked: Instant::now() });
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), provider, state })
    }

    fn current(&self) -> Arc<CertifiedKey> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= LOOK {
            state.looked = Instant::now();
            if let Ok(stamps) = stamps(&self.certificate, &self.key)
                && Some(stamps) != state.stamps
            {
                // Certificate and key are two files: one of them alone may have been written so far.
                match read(&self.certificate, &self.key, &self.provider) {
                    Ok(certified) => {
                        tracing::info!(path = %self.certificate.display(), "the TLS certificate was read again");
                        state.certified = Arc::new(certified);
                        state.stamps = Some(stamps);
                    }
                    Err(error) => tracing::error!(
                        error,
                        "the TLS certificate has changed and is wrong: the one before stays in use"
                    ),
                }
            }
        }
        state.certified.clone()
    }
}

impl ResolvesServerCert for Renewed {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

fn stamps(certificate: &Path, key: &Path) -> io::Result<[Stamp; 2]> {
    Ok([Stamp::of(certificate)?, Stamp::of(key)?])
}

fn read(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let of = |setting: &str, path: &Path, error: &dyn std::fmt::Display| {
        format!("front_door.{setting}: {}: {error}", path.display())
    };
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| of("tls_certificate", certificate, &error))?;
    if chain.is_empty() {
        return Err(of("tls_certificate", certificate, &"no certificate is in it"));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| of("tls_key", key, &error))?;
    CertifiedKey::from_der(chain, private, provider).map_err(|error| of("tls_key", key, &error))
}
