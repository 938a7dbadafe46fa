//! `ppvmm up --net` and `ppvmm down`: the network backend comes and goes with the store, and outlives who started it.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use tests::{binary, in_own_network, may_make_interfaces};

/// In a network of its own, so one shell has to do it all.
const STEPS: &str = r#"
set -eux
ip link add near type veth peer name far
ip link set near up
ip link set far up
"$1" up --profile local --enable-injection --net packet:near
"$1" net health
"$1" net inject kill keeper
sleep 1
"$1" net health
"$1" up --profile local --net packet:near | grep -q 'net_uk is already up'
"$1" net down
status=0; "$1" net health || status=$?; test $status = 3
"$1" net up --profile local --nic packet:near
"$1" net health net_uk.nic.0
"$1" down | tee -a /dev/stderr | grep -q 'net_uk is down'
status=0; "$1" net status || status=$?; test $status = 3
! pgrep -f "$PPVMM_RUNDIR"
"#;

#[test]
fn it_comes_with_the_store_and_goes_with_it() {
    if !may_make_interfaces() {
        return;
    }
    let rundir = tempfile::tempdir().unwrap();
    let output = in_own_network()
        .args(["bash", "-c", STEPS, "bash"])
        .arg(binary("ppvmm"))
        .env("PPVMM_RUNDIR", rundir.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let log = std::fs::read_to_string(rundir.path().join("net_uk.log")).unwrap_or_default();
    assert!(output.status.success(), "{told}\n{log}");
}
