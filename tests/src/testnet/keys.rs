//! The keys of the directory authorities, made before anything starts.

use std::{path::Path, process::Stdio};

use futures::future::{try_join, try_join_all};
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

use super::{
    TestnetError,
    dir::NetworkDir,
    documents,
    ports::PortLease,
    process::{TOR, TOR_GENCERT, tor_arguments},
    seed,
    torrc::{self, Authority},
    wait::Deadline,
};

/// An authority with the ports that wait for its process.
pub(super) struct NewAuthority {
    pub(super) authority: Authority,
    pub(super) or_port: PortLease,
    pub(super) dir_port: PortLease,
}

/// Makes the keys of all authorities, in parallel, and chooses their ports.
pub(super) async fn make_authorities(
    count: usize,
    dir: &NetworkDir,
    deadline: Deadline,
) -> Result<Vec<NewAuthority>, TestnetError> {
    let names = (0..count).map(|index| format!("auth{index}"));
    let made = timeout(
        deadline.left(),
        try_join_all(names.map(|name| make_authority(name, dir))),
    )
    .await
    .map_err(|_elapsed| TestnetError::Timeout("making the authorities' keys"))??;
    seed::shared_randomness(made.iter().map(|new| &new.authority), dir)?;
    Ok(made)
}

async fn make_authority(name: String, dir: &NetworkDir) -> Result<NewAuthority, TestnetError> {
    let node_dir = dir.make_node_dir(&name)?;
    let keys = dir.make_node_dir(&format!("{name}/keys"))?;
    try_join(make_voting_key(&keys), make_relay_keys(&name, &node_dir)).await?;
    let or_port = PortLease::new()?;
    let dir_port = PortLease::new()?;
    Ok(NewAuthority {
        authority: Authority {
            or_port: or_port.port(),
            dir_port: dir_port.port(),
            v3ident: documents::read_v3ident(&keys.join("authority_certificate"))?,
            rsa_identity: documents::read_fingerprint(&node_dir.join("fingerprint"))?,
            ed_identity: documents::read_fingerprint(&node_dir.join("fingerprint-ed25519"))?,
            nickname: name,
        },
        or_port,
        dir_port,
    })
}

async fn make_voting_key(keys: &Path) -> Result<(), TestnetError> {
    let mut command = Command::new(TOR_GENCERT);
    command
        .args(["--create-identity-key", "--passphrase-fd", "0", "-m", "12"])
        .arg("-i")
        .arg(keys.join("authority_identity_key"))
        .arg("-s")
        .arg(keys.join("authority_signing_key"))
        .arg("-c")
        .arg(keys.join("authority_certificate"));
    // The key protects nothing and lives as long as the test.
    run(TOR_GENCERT, command, b"testnet\n").await
}

/// Makes tor create its relay keys, which it also does when asked for them.
async fn make_relay_keys(name: &str, node_dir: &Path) -> Result<(), TestnetError> {
    // The port and the authority are placeholders: tor insists on both.
    let placeholder = format!(
        "DataDirectory {}\nNickname {name}\nAddress 127.0.0.1\nORPort 1\nSocksPort 0\n\
         DirAuthority none 127.0.0.1:1 {}\n",
        torrc::quoted(node_dir),
        "F".repeat(40),
    );
    torrc::save(node_dir, &placeholder)?;
    let mut command = Command::new(TOR);
    command
        .args(tor_arguments(&node_dir.join("torrc")))
        .args(["--list-fingerprint", "--quiet"]);
    run(TOR, command, b"").await
}

async fn run(
    program: &'static str,
    mut command: Command,
    input: &[u8],
) -> Result<(), TestnetError> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(TestnetError::io("start", program))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that reads nothing may close its end first.
        let _closed = stdin.write_all(input).await;
    }
    let output = child
        .wait_with_output()
        .await
        .map_err(TestnetError::io("run", program))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(TestnetError::Command {
        program,
        detail: String::from_utf8_lossy(&said).trim().to_owned(),
    })
}
