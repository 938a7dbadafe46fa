//! Puts of a plain client to the etcd that keeps our store's log, in the same run: what the engine's own cost is
//! measured by.
//!
//! It is the same etcd, still up with the store idle beside it, reached through the same kind of channel; as many puts
//! are under way as the line has requests. Each goes to a key of its own, as a batch of the log does.

use std::path::Path;
use std::time::Instant;

use etcd_client::Client;
use figures::Latencies;
use futures_util::future::try_join_all;
use xs_etcd::{Connector, EtcdOptions, Tcp};

use crate::args::Args;
use crate::error::{Error, Result, system};
use crate::limits::{BARE_VALUE, ETCD_SOCKET};
use crate::lines::{Scale, ops};

/// What stands beside a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bare {
    /// Clients, each with its own requests.
    pub clients: usize,
    /// Puts that a client has under way.
    pub at_once: usize,
    /// Such rounds, one after the other, that make one operation of the line.
    pub in_turn: usize,
    /// Puts that count when the rate is told.
    pub counted: usize,
}

/// Where the etcd of our store is, which has its files in `dir`; `None` without one, or for one with certificates.
pub fn endpoint(args: &Args, dir: &Path) -> Option<String> {
    if args.engine.as_deref() != Some("etcd") {
        return None;
    }
    let flags = || args.flags.iter().map(String::as_str);
    let named = flags().find_map(|flag| flag.strip_prefix("--etcd-endpoints="));
    let given = named.or_else(|| flags().skip_while(|flag| *flag != "--etcd-endpoints").nth(1));
    match given {
        None => Some(format!("unix://{}", dir.join(ETCD_SOCKET).display())),
        Some(given) => given.split(',').next().filter(|url| !url.starts_with("https:")).map(str::to_owned),
    }
}

/// Does it for the line's time; gives the figures of [`crate::lines::OPS`].
pub fn measure(endpoint: &str, bare: Bare, scale: Scale) -> Result<Vec<f64>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(system("make a runtime"))?;
    runtime.block_on(async {
        let client = connect(endpoint).await?;
        let began = Instant::now();
        let clients = (0..bare.clients).map(|number| puts(&client, number, bare, scale));
        let mut latencies = try_join_all(clients).await?;
        for latencies in &mut latencies {
            latencies.count *= bare.counted as u64;
        }
        Ok(ops(latencies, began.elapsed()))
    })
}

async fn connect(endpoint: &str) -> Result<Client> {
    let options = EtcdOptions { endpoints: vec![endpoint.to_owned()], ..EtcdOptions::default() };
    let endpoints = xs_etcd::endpoints(&options)?;
    let endpoint = endpoints.first().ok_or(Error::Protocol("no endpoint"))?;
    Ok(Client::from_channel(etcd_client::Channel::Tonic(Tcp.channel(endpoint)?), None).await?)
}

async fn puts(client: &Client, number: usize, bare: Bare, scale: Scale) -> Result<Latencies> {
    let mut latencies = Latencies::new();
    let began = Instant::now();
    let (mut last, mut key) = (began, 0_u64);
    while last.duration_since(began) < scale.time {
        for _ in 0..bare.in_turn {
            let puts = (0..bare.at_once).map(|_| {
                key += 1;
                let (mut kv, key) = (client.kv_client(), format!("/bare/{number}/{key:016x}"));
                async move { kv.put(key, BARE_VALUE, None).await }
            });
            try_join_all(puts.collect::<Vec<_>>()).await?;
        }
        let now = Instant::now();
        latencies.note(now - last);
        last = now;
    }
    Ok(latencies)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn of(words: &[&str]) -> Option<String> {
        let args = Args::try_parse_from(std::iter::once(&"bench").chain(words)).unwrap();
        endpoint(&args, Path::new("/d"))
    }

    #[test]
    fn the_etcd_of_the_store_is_found() {
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["--engine", "embedded"]), None);
        assert_eq!(of(&["--engine", "etcd"]).unwrap(), "unix:///d/etcd/localhost:1000");
        let given = ["--engine", "etcd", "--flag", "--etcd-endpoints", "--flag", "http://a:1,http://b:2"];
        assert_eq!(of(&given).unwrap(), "http://a:1");
        assert_eq!(of(&["--engine", "etcd", "--flag=--etcd-endpoints=http://c:3"]).unwrap(), "http://c:3");
        assert_eq!(of(&["--engine", "etcd", "--flag=--etcd-endpoints=https://c:3"]), None);
    }
}
