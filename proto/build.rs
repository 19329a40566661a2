//! Compiles the .proto files with protox, so that no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["partita/v1/envelope.proto", "partita/v1/request.proto", "partita/v1/task_batch.proto"];
    let descriptors = protox::compile(files, ["."])?;
    prost_build::Config::new().bytes(["."]).enable_type_names().compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed=partita");
    Ok(())
}
