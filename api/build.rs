//! Generates the types of `ppvmm.v1` in Rust alone: no `protoc` is needed.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

const PROTO: &str = "proto/ppvmm/v1/ppvmm.proto";

fn main() -> Result<(), Box<dyn Error>> {
    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    let descriptors = protox::compile([PROTO], ["proto"])?;
    std::fs::write(out_dir.join("ppvmm_descriptor.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
