//! How etcd is reached and used; for command lines and configuration files.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::CoreConfig;
use crate::error::EtcdError;
use crate::keys::Keys;
use crate::limits::ENDPOINTS_MAX;

/// Options of the etcd engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct EtcdOptions {
    /// Members of the etcd cluster, such as http://10.0.0.1:2379 or unix:///run/etcd.sock
    #[arg(long = "etcd-endpoints", value_name = "URL", value_delimiter = ',')]
    pub endpoints: Vec<String>,
    /// What all keys begin with; one for each replicated store
    #[arg(long = "etcd-prefix", value_name = "PREFIX", default_value = "/ppvmm/default/")]
    pub prefix: String,
    /// Certificates (PEM) that members are checked against
    #[arg(long = "etcd-ca", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Our own certificate (PEM)
    #[arg(long = "etcd-cert", value_name = "FILE", requires = "key_file")]
    pub cert_file: Option<PathBuf>,
    /// The key of our own certificate (PEM)
    #[arg(long = "etcd-key", value_name = "FILE", requires = "cert_file")]
    pub key_file: Option<PathBuf>,
    /// User of etcd's own authentication
    #[arg(long = "etcd-user", value_name = "NAME", requires = "password_file")]
    pub user: Option<String>,
    /// File that holds the user's password
    #[arg(long = "etcd-password-file", value_name = "FILE", requires = "user")]
    pub password_file: Option<PathBuf>,
    /// How long a connection may take
    #[arg(long = "etcd-connect-timeout-ms", value_name = "MS", default_value_t = 1000)]
    pub connect_timeout_ms: u64,
    /// How long the first attempt of a call waits; later ones wait longer
    #[arg(long = "etcd-call-timeout-ms", value_name = "MS", default_value_t = 500)]
    pub call_timeout_ms: u64,
    /// Pause between HTTP/2 pings on each connection. A member closes connections that ping more often than its
    /// --grpc-keepalive-min-time (5 s)
    #[arg(long = "etcd-keep-alive-interval-ms", value_name = "MS", default_value_t = 5500)]
    pub keep_alive_interval_ms: u64,
    /// How long a ping may stay unanswered
    #[arg(long = "etcd-keep-alive-timeout-ms", value_name = "MS", default_value_t = 2000)]
    pub keep_alive_timeout_ms: u64,
    /// How often the log and the fence are looked at when nothing is heard
    #[arg(long = "etcd-poll-interval-ms", value_name = "MS", default_value_t = 1000)]
    pub poll_interval_ms: u64,
    /// How often each member is asked for its state
    #[arg(long = "etcd-status-interval-ms", value_name = "MS", default_value_t = 5000)]
    pub status_interval_ms: u64,
    /// After this time without a commit, while entries wait, appends are refused
    #[arg(long = "etcd-unavailable-after-ms", value_name = "MS", default_value_t = 3000)]
    pub unavailable_after_ms: u64,
    /// Most bytes of the log that no snapshot covers
    #[arg(long = "etcd-log-bytes-max", value_name = "BYTES", default_value_t = 64 << 20)]
    pub log_bytes_max: u64,
    /// Whether a follower is told of each batch at once, for callers that have no other way to learn of it. It costs the
    /// machine of the leader a few wake-ups for each.
    #[arg(skip = true)]
    pub watch: bool,
}

impl Default for EtcdOptions {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            prefix: "/ppvmm/default/".to_owned(),
            ca_file: None,
            cert_file: None,
            key_file: None,
            user: None,
            password_file: None,
            connect_timeout_ms: 1000,
            call_timeout_ms: 500,
            keep_alive_interval_ms: 5500,
            keep_alive_timeout_ms: 2000,
            poll_interval_ms: 1000,
            status_interval_ms: 5000,
            unavailable_after_ms: 3000,
            log_bytes_max: 64 << 20,
            watch: true,
        }
    }
}

impl EtcdOptions {
    /// Checks what can be checked without asking anybody.
    ///
    /// # Errors
    /// [`EtcdError::Options`].
    pub fn validate(&self) -> Result<(), EtcdError> {
        let refuse = |what: String| Err(EtcdError::Options { what });
        if self.endpoints.is_empty() || self.endpoints.len() > ENDPOINTS_MAX {
            return refuse(format!("{} endpoints; 1 to {ENDPOINTS_MAX} are possible", self.endpoints.len()));
        }
        for endpoint in &self.endpoints {
            let scheme = endpoint.split_once("://").map(|(scheme, _)| scheme);
            match scheme {
                Some("https") => {}
                Some("unix") if self.ca_file.is_none() && self.cert_file.is_none() => {}
                Some("http") if self.ca_file.is_none() && self.cert_file.is_none() => {}
                Some("http" | "unix") => {
                    return refuse(format!("{endpoint}: certificates need https://"));
                }
                _ => return refuse(format!("{endpoint}: neither http://, https:// nor unix://")),
            }
        }
        if !self.prefix.ends_with('/') || self.prefix.len() > 256 {
            return refuse(format!("prefix {:?}: to end with / and to have 256 bytes at most", self.prefix));
        }
        if self.cert_file.is_some() != self.key_file.is_some() {
            return refuse("a certificate needs its key".to_owned());
        }
        if self.user.is_some() != self.password_file.is_some() {
            return refuse("a user needs a password file".to_owned());
        }
        let zero =
            [self.call_timeout_ms, self.poll_interval_ms, self.status_interval_ms, self.connect_timeout_ms];
        if zero.contains(&0) || self.log_bytes_max == 0 {
            return refuse("intervals, timeouts and sizes must not be 0".to_owned());
        }
        Ok(())
    }

    pub(crate) fn core(&self) -> CoreConfig {
        CoreConfig {
            keys: Keys::new(&self.prefix),
            endpoints: self.endpoints.clone(),
            call_timeout: Duration::from_millis(self.call_timeout_ms),
            poll_interval: Duration::from_millis(self.poll_interval_ms),
            status_interval: Duration::from_millis(self.status_interval_ms),
            unavailable_after: Duration::from_millis(self.unavailable_after_ms),
            log_bytes_max: self.log_bytes_max,
            watch: self.watch,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        etcd: EtcdOptions,
    }

    #[test]
    fn command_line_and_file_have_the_same_defaults() {
        assert_eq!(Line::parse_from(["test"]).etcd, EtcdOptions::default());
        assert_eq!(serde_json::from_str::<EtcdOptions>("{}").unwrap(), EtcdOptions::default());
        assert!(serde_json::from_str::<EtcdOptions>("{\"endpoint\":[]}").is_err());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let good = EtcdOptions { endpoints: vec!["http://a:1".to_owned()], ..EtcdOptions::default() };
        good.validate().unwrap();
        let many = vec!["http://a:1".to_owned(); ENDPOINTS_MAX + 1];
        for bad in [
            EtcdOptions::default(),
            EtcdOptions { endpoints: many, ..good.clone() },
            EtcdOptions { endpoints: vec!["a:1".to_owned()], ..good.clone() },
            EtcdOptions { ca_file: Some("ca".into()), ..good.clone() },
            EtcdOptions {
                cert_file: Some("c".into()),
                endpoints: vec!["https://a:1".to_owned()],
                ..good.clone()
            },
            EtcdOptions { user: Some("u".to_owned()), ..good.clone() },
            EtcdOptions { prefix: "x".to_owned(), ..good.clone() },
            EtcdOptions { call_timeout_ms: 0, ..good },
        ] {
            assert!(matches!(bad.validate(), Err(EtcdError::Options { .. })), "{bad:?}");
        }
    }
}
