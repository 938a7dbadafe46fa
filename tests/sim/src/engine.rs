//! The engines, as processes of the world see them.

use std::sync::Arc;

use tonic::transport::{Channel, Endpoint};
use xs_consensus::{Consensus, Cursor, Embedded};
use xs_etcd::{Connector, EtcdError, EtcdLog, EtcdOptions};

use crate::options::Engine;
use crate::process::{End, Env};

/// The port of the simulated etcd's members.
pub const ETCD_PORT: u16 = 2379;

/// The simulated network below the etcd client.
struct Simulated;

impl Connector for Simulated {
    fn channel(&self, endpoint: &Endpoint) -> Result<Channel, EtcdError> {
        let connect = tower::service_fn(|uri: tonic::codegen::http::Uri| async move {
            let host = uri.host().unwrap_or_default().to_owned();
            let stream = turmoil::net::TcpStream::connect((host.as_str(), ETCD_PORT)).await?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
        });
        Ok(endpoint.connect_with_connector_lazy(connect))
    }
}

/// The engine of this process, from `cursor` on.
///
/// # Errors
/// [`End::Failed`].
pub fn open(env: &Env, cursor: Cursor) -> Result<Box<dyn Consensus>, End> {
    let failed = |error: &dyn std::fmt::Display| End::Failed(error.to_string());
    let (engine, members, seed) =
        env.with(|kernel| (kernel.options.engine, kernel.options.members, kernel.options.seed));
    match engine {
        Engine::Embedded => {
            let region = env.with(|kernel| kernel.map_log()).map_err(|error| failed(&error))?;
            Ok(Box::new(Embedded::attach(region, cursor).map_err(|error| failed(&error))?))
        }
        Engine::Etcd => {
            let options = EtcdOptions {
                endpoints: (0..members).map(|i| format!("http://etcd-{i}:{ETCD_PORT}")).collect(),
                keep_alive_interval_ms: 500,
                keep_alive_timeout_ms: 500,
                poll_interval_ms: 200,
                watch: seed.is_multiple_of(2),
                ..EtcdOptions::default()
            };
            let nonce = seed ^ (u64::from(env.replica()) << 32) ^ env.incarnation;
            let opened = EtcdLog::on_runtime(&options, cursor, Arc::new(Simulated), Some(nonce));
            let (log, driver) = opened.map_err(|error| failed(&error))?;
            tokio::spawn(driver);
            Ok(Box::new(log))
        }
    }
}
