use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls_platform_verifier::Verifier;

use crate::ConfigError;

/// TLS 1.2 and 1.3 with ring; trusts what the system trusts, and `ca_pem`.
pub(crate) fn client(ca_pem: Option<&[u8]>) -> Result<rustls::ClientConfig, ConfigError> {
    let failed = |why: String| ConfigError::Certificates { why };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut extra = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.unwrap_or_default()) {
        extra.push(certificate.map_err(|e| failed(e.to_string()))?);
    }
    if extra.is_empty() && ca_pem.is_some() {
        return Err(failed("there is none in the PEM text".into()));
    }
    let verifier = Verifier::new_with_extra_roots(extra, provider.clone())
        .map_err(|e| failed(e.to_string()))?;
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(config)
}
