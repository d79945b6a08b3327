//! Compiles the .proto files, without protoc: messages, clients, servers, and the descriptors.

use prost::Message;
use std::error::Error;
use std::path::PathBuf;

/// Where the files lie.
const ROOT: &str = "proto";
/// What everybody may see, and what reflection tells of.
const PUBLIC: [&str; 10] = [
    "yard/v1/cluster.proto",
    "yard/v1/common.proto",
    "yard/v1/events.proto",
    "yard/v1/explain.proto",
    "yard/v1/holders.proto",
    "yard/v1/interactive.proto",
    "yard/v1/jobs.proto",
    "yard/v1/nodes.proto",
    "yard/v1/samples.proto",
    "yard/v1/users.proto",
];
/// What agents and members say to each other.
const INTERNAL: [&str; 2] = ["yard/internal/v1/agent.proto", "yard/internal/v1/member.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={ROOT}");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let all = protox::compile(PUBLIC.iter().chain(&INTERNAL), [ROOT])?;
    let mut public = protox::compile(PUBLIC, [ROOT])?;
    let mut bare = all.clone();
    // Comments become the documentation of the generated code; nobody needs them at run time.
    for file in public.file.iter_mut().chain(&mut bare.file) {
        file.source_code_info = None;
    }
    std::fs::write(out.join("public.bin"), public.encode_to_vec())?;
    std::fs::write(out.join("all.bin"), bare.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        // What must not be shown writes its own Debug.
        .skip_debug([".yard.v1.Secret"])
        .emit_rerun_if_changed(false)
        .compile_fds(all)?;
    Ok(())
}
