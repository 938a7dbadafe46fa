//! Certificates and passwords.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use etcd_client::{Client, PermissionType};
use etcd_stand::{EtcdStand, StandOptions};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use xs_consensus::{Consensus, EngineWarning};
use xs_etcd::EtcdOptions;

use crate::rig::{PATIENCE, append, drain_until, engine, lead, options, save, sleep_on, stand};

struct Pki {
    ca: PathBuf,
    server: [PathBuf; 2],
    client: [PathBuf; 2],
}

fn write(path: PathBuf, pem: &str) -> PathBuf {
    std::fs::write(&path, pem).unwrap();
    path
}

fn pki(dir: &Path) -> Pki {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    let issue = |name: &str, subjects: &[&str]| {
        let key = KeyPair::generate().unwrap();
        let subjects: Vec<_> = subjects.iter().map(|subject| (*subject).to_owned()).collect();
        let certificate = CertificateParams::new(subjects).unwrap().signed_by(&key, &issuer).unwrap();
        let files = [format!("{name}.pem"), format!("{name}.key")].map(|file| dir.join(file));
        [write(files[0].clone(), &certificate.pem()), write(files[1].clone(), &key.serialize_pem())]
    };
    let (server, client) = (issue("server", &["127.0.0.1", "localhost"]), issue("client", &["client"]));
    Pki { ca: write(dir.join("ca.pem"), &ca_pem), server, client }
}

#[test]
fn certificates_of_both_sides_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let Pki { ca, server: [cert, key], client: [our_cert, our_key] } = pki(dir.path());
    let tls = StandOptions { tls: Some([cert, key, ca.clone()]), ..StandOptions::default() };
    let stand = EtcdStand::start_in_memory(1, tls).unwrap();
    let good = EtcdOptions {
        ca_file: Some(ca.clone()),
        cert_file: Some(our_cert),
        key_file: Some(our_key),
        ..options(&stand)
    };
    let (mut leader, mut ours) = (engine(&good), Vec::new());
    lead(&mut leader, 1, &mut ours);
    append(&mut leader, b"secret", &mut ours);
    drain_until(&mut leader, &mut ours, |all| all.len() == 1);
    let stranger = pki(tempfile::tempdir_in(dir.path()).unwrap().keep().as_path());
    let unknown = EtcdOptions { ca_file: Some(stranger.ca), ..good.clone() };
    let nameless = EtcdOptions { cert_file: None, key_file: None, ..good };
    for bad in [unknown, nameless] {
        fails(&bad);
    }
}

#[test]
fn a_user_with_a_password_uses_its_keys_and_nobody_else_does() {
    let stand = stand(1);
    let dir = tempfile::tempdir().unwrap();
    let password = write(dir.path().join("password"), "right\n");
    let wrong = write(dir.path().join("wrong"), "wrong\n");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(enable_authentication(&stand.endpoints()));
    let open = options(&stand);
    let good = EtcdOptions { user: Some("ppvmm".to_owned()), password_file: Some(password), ..open.clone() };
    let (mut leader, mut ours) = (engine(&good), Vec::new());
    lead(&mut leader, 1, &mut ours);
    append(&mut leader, b"one", &mut ours);
    drain_until(&mut leader, &mut ours, |all| all.len() == 1);
    save(&mut leader, vec![1; 10]);
    fails(&open);
    fails(&EtcdOptions { password_file: Some(wrong), ..good });
    append(&mut leader, b"two", &mut ours);
    drain_until(&mut leader, &mut ours, |all| all.len() == 2);
}

/// The engine says that its calls fail, and serves nothing.
fn fails(options: &EtcdOptions) {
    let (began, mut engine) = (Instant::now(), engine(options));
    let failing = |warning: &EngineWarning| matches!(warning, EngineWarning::Failing { .. });
    while !engine.state().warnings.iter().any(failing) {
        assert!(began.elapsed() < PATIENCE, "{:?}", engine.state());
        sleep_on(&engine);
    }
    engine.lead(xs_consensus::Epoch(9)).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(!engine.is_leading().unwrap());
}

async fn enable_authentication(endpoints: &[String]) {
    let mut client = Client::connect(endpoints, None).await.unwrap();
    client.user_add("root", "root", None).await.unwrap();
    client.role_add("root").await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.user_add("ppvmm", "right", None).await.unwrap();
    client.role_add("store").await.unwrap();
    let permission = etcd_client::Permission::new(PermissionType::Readwrite, "/ppvmm/test/").with_prefix();
    client.role_grant_permission("store", permission).await.unwrap();
    client.user_grant_role("ppvmm", "store").await.unwrap();
    client.auth_enable().await.unwrap();
}
