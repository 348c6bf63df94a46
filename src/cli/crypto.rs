//! The provider of cryptography for this process.

/// Sets the provider that kube, tokio-postgres and the HTTPS server look up.
pub(crate) fn install_crypto_provider() {
    // It fails only if a provider is set already. In a test that is the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
