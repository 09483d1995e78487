//! Compiles the .proto files, with a protobuf compiler written in Rust: none need be installed.

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "quipu/v1/errors.proto",
        "quipu/v1/log.proto",
        "quipu/v1/groups.proto",
        "quipu/v1/admin.proto",
        "quipu/peer/v1/peer.proto",
    ];
    println!("cargo:rerun-if-changed=quipu");
    let descriptors = protox::compile(files, ["."])?;
    let path = std::path::PathBuf::from(std::env::var("OUT_DIR")?).join("descriptors.bin");
    std::fs::write(path, descriptors.encode_to_vec())?;
    // Maps in order: the same message has the same bytes, in every run of a simulation.
    tonic_prost_build::configure().bytes(".").btree_map(".").compile_fds(descriptors)?;
    Ok(())
}
