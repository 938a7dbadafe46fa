//! The engines, as processes of the world see them.

use std::sync::Arc;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use xs_consensus::{Consensus, Cursor, Embedded};
use xs_etcd::{Connector, CopiedLog, CopyOptions, EtcdError, EtcdLog, EtcdOptions};

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
    let engine = env.with(|kernel| kernel.options.engine);
    Ok(match engine {
        Engine::Embedded => Box::new(embedded(env, cursor)?),
        Engine::Etcd => Box::new(etcd(env, cursor)?),
        Engine::Copied => {
            let copy = CopyOptions { etcd: options(env), linger: Duration::from_millis(5) };
            let copied = CopiedLog::on_runtime(embedded(env, cursor)?, copy, Arc::new(Simulated), nonce(env));
            Box::new(copied.map_err(|error| failed(&error))?)
        }
    })
}

fn embedded(env: &Env, cursor: Cursor) -> Result<Embedded, End> {
    let region = env.with(|kernel| kernel.map_log()).map_err(|error| failed(&error))?;
    Embedded::attach(region, cursor).map_err(|error| failed(&error))
}

/// A view of the log in etcd.
///
/// # Errors
/// [`End::Failed`].
pub fn etcd(env: &Env, cursor: Cursor) -> Result<EtcdLog, End> {
    let opened = EtcdLog::on_runtime(&options(env), cursor, Arc::new(Simulated), Some(nonce(env)));
    let (log, driver) = opened.map_err(|error| failed(&error))?;
    tokio::spawn(driver);
    Ok(log)
}

fn options(env: &Env) -> EtcdOptions {
    let (members, seed, wait_ms) =
        env.with(|kernel| (kernel.options.members, kernel.options.seed, kernel.options.request_wait_ms));
    let copied = env.with(|kernel| kernel.options.engine) == Engine::Copied;
    EtcdOptions {
        endpoints: (0..members).map(|i| format!("http://etcd-{i}:{ETCD_PORT}")).collect(),
        keep_alive_interval_ms: 500,
        keep_alive_timeout_ms: 500,
        poll_interval_ms: 200,
        unavailable_after_ms: if copied { wait_ms } else { EtcdOptions::default().unavailable_after_ms },
        watch: seed.is_multiple_of(2),
        ..EtcdOptions::default()
    }
}

fn nonce(env: &Env) -> u64 {
    env.with(|kernel| kernel.options.seed) ^ (u64::from(env.replica()) << 32) ^ env.incarnation
}

fn failed(error: &dyn std::fmt::Display) -> End {
    End::Failed(error.to_string())
}
