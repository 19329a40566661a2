//! TLS: the certificate and its key, and those whose certificates clients must have, read again when their files have changed.

use super::stamp::{LOOK, Stamp};
use crate::{Error, config::ConfigError, config::FrontDoorConfig};
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use std::{
    fmt, io,
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
    let versions =
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = versions.map_err(|error| ConfigError(format!("front_door.tls_certificate: {error}")))?;
    let builder = match &config.tls_client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let clients = Clients::new(path, provider.clone()).map_err(ConfigError)?;
            builder.with_client_cert_verifier(Arc::new(clients))
        }
    };
    let certified = certified(certificate.clone(), key.clone(), provider).map_err(ConfigError)?;
    let mut tls = builder.with_cert_resolver(Arc::new(certified));
    tls.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
    if config.tls_client_ca.is_some() {
        // A session that is resumed shows no certificate: one that nobody vouches for any more would be enough.
        tls.session_storage = Arc::new(NoServerSessionStorage {});
    }
    Ok(Some(tls))
}

/// What is made of files, anew when whoever writes them has done so.
struct Renewed<T> {
    files: Vec<PathBuf>,
    read: Box<dyn Fn() -> Result<T, String> + Send + Sync>,
    state: Mutex<State<T>>,
}

struct State<T> {
    present: Arc<T>,
    /// `None`: they could not be looked at.
    stamps: Option<Vec<Stamp>>,
    looked: Instant,
    /// They could not be looked at the last time.
    missing: bool,
}

impl<T> Renewed<T> {
    fn new(
        files: Vec<PathBuf>,
        read: impl Fn() -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let stamps = stamps(&files).ok();
        let state = State { present: Arc::new(read()?), stamps, looked: Instant::now(), missing: false };
        Ok(Self { files, read: Box::new(read), state: Mutex::new(state) })
    }

    fn present(&self) -> Arc<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= LOOK {
            state.looked = Instant::now();
            self.look(&mut state);
        }
        state.present.clone()
    }

    fn look(&self, state: &mut State<T>) {
        match stamps(&self.files) {
            Ok(stamps) if state.stamps.as_ref() == Some(&stamps) => state.missing = false,
            // Of several files some may have been written so far.
            Ok(stamps) => match (self.read)() {
                Ok(read) => {
                    tracing::info!(files = ?self.files, "certificates were read again");
                    state.present = Arc::new(read);
                    state.stamps = Some(stamps);
                    state.missing = false;
                }
                Err(error) => {
                    tracing::error!(
                        error,
                        "certificates have changed and are wrong: those before stay in use"
                    );
                }
            },
            Err(error) if !state.missing => {
                tracing::error!(%error, files = ?self.files, "certificates are gone: what was there before stays in use");
                state.missing = true;
            }
            Err(_) => {}
        }
    }
}

impl<T> fmt::Debug for Renewed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewed").field("files", &self.files).finish_non_exhaustive()
    }
}

fn stamps(files: &[PathBuf]) -> io::Result<Vec<Stamp>> {
    files.iter().map(|file| Stamp::of(file)).collect()
}

impl ResolvesServerCert for Renewed<CertifiedKey> {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.present())
    }
}

/// What the server shows.
fn certified(
    certificate: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
) -> Result<Renewed<CertifiedKey>, String> {
    let files = vec![certificate.clone(), key.clone()];
    Renewed::new(files, move || read(&certificate, &key, &provider))
}

/// Those whose certificates clients must have. Clients are not told who that is: it may have changed by the next handshake.
#[derive(Debug)]
struct Clients(Renewed<Arc<dyn ClientCertVerifier>>);

impl Clients {
    fn new(path: &Path, provider: Arc<CryptoProvider>) -> Result<Self, String> {
        let file = path.to_owned();
        let read = move || {
            let wrong = |error: &dyn fmt::Display| format!("front_door.tls_client_ca: {error}");
            let roots = Arc::new(roots(&file).map_err(|error| wrong(&error))?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build();
            verifier.map(|verifier| verifier as Arc<dyn ClientCertVerifier>).map_err(|error| wrong(&error))
        };
        Renewed::new(vec![path.to_owned()], read).map(Self)
    }
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.0.present().verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.present().verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.present().verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.present().supported_verify_schemes()
    }
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let named = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| named(&error))? {
        let certificate = certificate.map_err(|error| named(&error))?;
        roots.add(certificate).map_err(|error| named(&error))?;
    }
    if roots.is_empty() { Err(named(&"no certificate is in it")) } else { Ok(roots) }
}

fn read(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let of = |setting: &str, path: &Path, error: &dyn fmt::Display| {
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
