//! Generates the types of `ppvmm.v1` in Rust alone: no `protoc` is needed.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

const PROTOS: [&str; 2] = ["proto/ppvmm/v1/ppvmm.proto", "proto/ppvmm/v1/net.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    std::fs::write(out_dir.join("ppvmm_descriptor.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
