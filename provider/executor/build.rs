//! Tells the crate the exact versions of the libraries that run functions, from Cargo.lock.
//!
//! They name the engine: code and fuel may differ between two of them.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// What decides how a function runs. All their dependencies come with them.
const LIBRARIES: [&str; 3] = ["wasmtime", "wasmtime-wasi", "wasmtime-wasi-http"];

fn main() -> Result<(), Box<dyn Error>> {
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let lock = here
        .ancestors()
        .map(|directory| directory.join("Cargo.lock"))
        .find(|lock| lock.exists())
        .ok_or("there is no Cargo.lock above this crate")?;
    println!("cargo::rerun-if-changed={}", lock.display());
    println!("cargo::rerun-if-changed=build.rs");
    let versions = versions(&lock)?;
    println!("cargo::rustc-env=DLAMBDA_ENGINE_LIBRARIES={versions}");
    Ok(())
}

/// `name version`, separated by commas.
fn versions(lock: &Path) -> Result<String, Box<dyn Error>> {
    let lock = fs::read_to_string(lock)?;
    let mut versions = Vec::new();
    for library in LIBRARIES {
        let entry = format!("[[package]]\nname = \"{library}\"\nversion = \"");
        let mut found = lock.match_indices(&entry);
        let (Some((at, _)), None) = (found.next(), found.next()) else {
            return Err(format!("Cargo.lock has not exactly one {library}").into());
        };
        let rest = &lock[at + entry.len()..];
        let version = rest.split('"').next().ok_or("Cargo.lock ends early")?;
        versions.push(format!("{library} {version}"));
    }
    Ok(versions.join(","))
}
