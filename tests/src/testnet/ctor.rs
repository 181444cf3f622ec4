//! C tor as a client and as an onion service, to compare with.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::atomic::Ordering,
};

use super::{
    Testnet, TestnetError,
    ports::PortLease,
    process::Process,
    torrc,
    wait::{self, Deadline},
};

/// A running C tor client; it ends when dropped.
#[derive(Debug)]
pub struct CTorClient {
    /// Its SOCKS port.
    pub socks: SocketAddr,
    /// Its process.
    pub pid: u32,
    process: Process,
}

impl CTorClient {
    pub(super) async fn start(testnet: &Testnet, deadline: Deadline) -> Result<Self, TestnetError> {
        let (name, dir) = client_dir(testnet, "client")?;
        let port = PortLease::new()?;
        let torrc = torrc::client(Some(port.port()), &testnet.authorities, &dir);
        torrc::save(&dir, &torrc)?;
        let socks = (Ipv4Addr::LOCALHOST, port.release()).into();
        let mut process = Process::start(&name, &dir)?;
        wait::until(deadline, "waiting for C tor to build a circuit", || {
            process.check_alive()?;
            Ok(process.is_bootstrapped())
        })
        .await?;
        Ok(Self {
            socks,
            pid: process.pid(),
            process,
        })
    }

    /// Everything it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// A running C tor onion service; it ends when dropped.
#[derive(Debug)]
pub struct CTorOnion {
    /// Its address: 56 characters and `.onion`.
    pub address: String,
    /// The port it offers.
    pub virtual_port: u16,
    /// Its process.
    pub pid: u32,
    process: Process,
}

impl CTorOnion {
    pub(super) async fn start(
        testnet: &Testnet,
        virtual_port: u16,
        target: SocketAddr,
        deadline: Deadline,
    ) -> Result<Self, TestnetError> {
        let (name, dir) = client_dir(testnet, "onion")?;
        let torrc = torrc::onion(virtual_port, target, &testnet.authorities, &dir);
        torrc::save(&dir, &torrc)?;
        let mut process = Process::start(&name, &dir)?;
        wait::until(
            deadline,
            "waiting for C tor to publish a descriptor",
            || {
                process.check_alive()?;
                Ok(is_published(&process.log()))
            },
        )
        .await?;
        let hostname = dir.join("onion/hostname");
        let address = fs::read_to_string(&hostname).map_err(TestnetError::io("read", &hostname))?;
        Ok(Self {
            address: address.trim().to_owned(),
            virtual_port,
            pid: process.pid(),
            process,
        })
    }

    /// Everything it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }
}

fn client_dir(testnet: &Testnet, kind: &str) -> Result<(String, PathBuf), TestnetError> {
    let number = testnet.clients.fetch_add(1, Ordering::Relaxed);
    let name = format!("{kind}{number}");
    let dir = testnet.dir.make_client_dir(&name)?;
    Ok((name, dir))
}

/// Whether every upload that was begun has been accepted.
fn is_published(log: &str) -> bool {
    let begun = log.matches("initiated upload request").count();
    let accepted = log
        .matches("Uploading hidden service descriptor: finished with status 200")
        .count();
    begun > 0 && accepted >= begun
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_means_every_upload_was_accepted() {
        let begun = "[info] initiated upload request with index 0A\n";
        let accepted =
            "[info] Uploading hidden service descriptor: finished with status 200 (\"x\")\n";
        assert!(!is_published(""));
        assert!(!is_published(&[begun, begun, accepted].concat()));
        assert!(is_published(&[begun, begun, accepted, accepted].concat()));
    }
}
