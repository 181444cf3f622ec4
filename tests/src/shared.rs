//! One private Tor network for all tests of a run, started by the first that
//! needs it.
//!
//! It ends with the run: `dlambda-testnet` watches the process that started the
//! tests. Tests that stop or restart nodes start a network of their own.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::program::binary;

/// For the network to be ready, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(50);

/// The network file of the run's Tor network.
///
/// # Errors
///
/// If the network does not start.
pub async fn tor_network() -> Result<PathBuf> {
    tokio::task::spawn_blocking(|| {
        // nextest has a process for every test; elsewhere all tests are in this one.
        let owner = match std::env::var_os("NEXTEST_RUN_ID") {
            Some(_) => std::os::unix::process::parent_id(),
            None => std::process::id(),
        };
        let target = binary("dlambda-testnet")?;
        let target = target.parent().context("a directory of programs")?;
        let networks = target.join("shared-networks");
        fs::create_dir_all(&networks)?;
        network_of(owner, &networks)
    })
    .await?
}

/// Starts the network unless somebody has.
fn network_of(owner: u32, networks: &Path) -> Result<PathBuf> {
    let lock = File::create(networks.join("lock"))?;
    lock.lock()?;
    forget_ended(networks)?;
    let (ready, log) = (
        networks.join(format!("{owner}.json")),
        networks.join(format!("{owner}.log")),
    );
    if let Some(network) = read(&ready) {
        return Ok(network);
    }
    let mut testnet = Command::new(binary("dlambda-testnet")?)
        .args(["up", "--ready-timeout", "150", "--owner-pid"])
        .arg(owner.to_string())
        .stdin(Stdio::null())
        .stdout(File::create(&ready)?)
        .stderr(File::create(&log)?)
        // It outlives the test that starts it.
        .process_group(0)
        .spawn()?;
    let begun = Instant::now();
    loop {
        if let Some(network) = read(&ready) {
            return Ok(network);
        }
        let ended = testnet.try_wait()?;
        if ended.is_some() || begun.elapsed() > PATIENCE {
            let _ended_already = testnet.kill();
            let _reaped = testnet.wait();
            fs::remove_file(&ready)?;
            let said = fs::read_to_string(&log).unwrap_or_default();
            bail!("the network of this run did not start: {said}");
        }
        std::thread::sleep(POLL);
    }
}

/// The network file, once the whole line that names it is there.
fn read(ready: &Path) -> Option<PathBuf> {
    let line = fs::read_to_string(ready).ok()?;
    let line: Value = serde_json::from_str(line.strip_suffix('\n')?).ok()?;
    Some(line["network"].as_str()?.into())
}

/// Removes what earlier runs have left, so that nobody takes it for ours.
fn forget_ended(networks: &Path) -> Result<()> {
    for entry in fs::read_dir(networks)? {
        let path = entry?.path();
        let network = path.extension().is_some_and(|it| it == "json");
        if network && !read(&path).is_some_and(|file| file.exists()) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}
