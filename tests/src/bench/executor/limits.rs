//! What each limit costs a guest that only computes: the same engine, with
//! and without, by wasmtime's own program.

use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

use super::{Report, Setting};

/// Bytes to hash: about half a second without limits.
const INPUT: usize = 64 << 20;

/// Time of one computation under each limit.
pub(crate) async fn prices(setting: &Setting, report: &mut Report) -> Result<()> {
    let work = tempfile::tempdir()?;
    let input = work.path().join("input");
    std::fs::write(&input, vec![b'x'; INPUT])?;
    let function = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/functions/sha256.wasm");
    for (name, options) in [
        ("no limit", "simd=y"),
        ("fuel", "fuel=100000000000"),
        ("epochs", "epoch-interruption=y"),
        ("canonical NaNs", "nan-canonicalization=y"),
        (
            "all three",
            "fuel=100000000000,epoch-interruption=y,nan-canonicalization=y",
        ),
    ] {
        let compiled = work.path().join("sha256.cwasm");
        let made = Command::new(&setting.wasmtime)
            .args(["compile", "-W", options])
            .arg("-o")
            .arg(&compiled)
            .arg(&function)
            .status();
        ensure!(
            made.await.context("wasmtime")?.success(),
            "wasmtime compile failed"
        );
        let begun = Instant::now();
        let ran = Command::new(&setting.wasmtime)
            .args(["run", "--allow-precompiled", "-W"])
            // What compiled code calls epochs is a deadline when it runs.
            .arg(options.replace("epoch-interruption=y", "timeout=60s"))
            .arg(&compiled)
            .stdin(std::fs::File::open(&input)?)
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .status();
        ensure!(ran.await?.success(), "wasmtime run failed");
        let time = begun.elapsed().as_secs_f64() * 1e3;
        report.add(&format!("computing (wasmtime run), {name}"), "ms", time);
    }
    Ok(())
}
