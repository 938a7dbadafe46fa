//! How a channel to a member is made.

use std::path::Path;
use std::time::Duration;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::error::EtcdError;
use crate::options::EtcdOptions;

/// Makes channels to members. Simulations put their own network below the same driver with this.
pub trait Connector: Send + Sync + 'static {
    /// A channel that connects by itself when it is used.
    ///
    /// # Errors
    /// [`EtcdError::Transport`].
    fn channel(&self, endpoint: &Endpoint) -> Result<Channel, EtcdError>;
}

/// TCP, with TLS where the endpoint says so.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Connector for Tcp {
    fn channel(&self, endpoint: &Endpoint) -> Result<Channel, EtcdError> {
        Ok(endpoint.connect_lazy())
    }
}

/// The members' endpoints with time limits, pings and certificates as the options say.
///
/// # Errors
/// [`EtcdError::Options`], [`EtcdError::File`], [`EtcdError::Transport`].
pub fn endpoints(options: &EtcdOptions) -> Result<Vec<Endpoint>, EtcdError> {
    options.validate()?;
    let tls = tls(options)?;
    options.endpoints.iter().map(|url| endpoint(options, tls.as_ref(), url)).collect()
}

fn endpoint(options: &EtcdOptions, tls: Option<&ClientTlsConfig>, url: &str) -> Result<Endpoint, EtcdError> {
    let endpoint = Endpoint::from_shared(url.to_owned())?
        .connect_timeout(Duration::from_millis(options.connect_timeout_ms))
        .http2_keep_alive_interval(Duration::from_millis(options.keep_alive_interval_ms))
        .keep_alive_timeout(Duration::from_millis(options.keep_alive_timeout_ms))
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    match tls {
        Some(tls) if url.starts_with("https://") => Ok(endpoint.tls_config(tls.clone())?),
        _ => Ok(endpoint),
    }
}

fn tls(options: &EtcdOptions) -> Result<Option<ClientTlsConfig>, EtcdError> {
    if !options.endpoints.iter().any(|url| url.starts_with("https://")) {
        return Ok(None);
    }
    let mut tls = ClientTlsConfig::new();
    if let Some(ca) = &options.ca_file {
        tls = tls.ca_certificate(Certificate::from_pem(read(ca)?));
    }
    if let (Some(cert), Some(key)) = (&options.cert_file, &options.key_file) {
        tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
    }
    Ok(Some(tls))
}

/// The user and the password, if the options name them.
pub(crate) fn credentials(options: &EtcdOptions) -> Result<Option<(String, String)>, EtcdError> {
    let (Some(user), Some(file)) = (&options.user, &options.password_file) else { return Ok(None) };
    let password = String::from_utf8_lossy(&read(file)?).trim_end_matches(['\r', '\n']).to_owned();
    Ok(Some((user.clone(), password)))
}

fn read(path: &Path) -> Result<Vec<u8>, EtcdError> {
    std::fs::read(path).map_err(|source| EtcdError::File { path: path.to_owned(), source })
}
