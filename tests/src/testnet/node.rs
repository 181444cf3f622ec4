//! A node of the network: its place, its ports and its process.

use std::path::PathBuf;

use rustix::process::Signal;

use super::{Process, TestnetError};

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Votes on the consensus, and relays.
    Authority,
    /// Relays: guard, middle, exit to loopback, and onion service directory.
    Relay,
}

/// One node of a [`super::Testnet`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Node {
    /// `auth0`, `relay3`, ...; also its nickname in the consensus.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// Its process, or `None` while it is down.
    pub pid: Option<u32>,
    /// Where it relays, on 127.0.0.1.
    pub or_port: u16,
    /// Where an authority answers directory requests, on 127.0.0.1.
    pub dir_port: Option<u16>,
    /// Its data directory, with `torrc` and `log`.
    pub dir: PathBuf,
    process: Option<Process>,
}

impl Node {
    pub(super) fn new(
        name: String,
        role: Role,
        or_port: u16,
        dir_port: Option<u16>,
        dir: PathBuf,
    ) -> Self {
        Self {
            name,
            role,
            pid: None,
            or_port,
            dir_port,
            dir,
            process: None,
        }
    }

    pub(super) fn start(&mut self) -> Result<(), TestnetError> {
        let process = Process::start(&self.name, &self.dir)?;
        self.pid = Some(process.pid());
        self.process = Some(process);
        Ok(())
    }

    pub(super) fn kill(&mut self) {
        self.pid = None;
        self.process = None;
    }

    pub(super) fn terminate(&self) {
        if let Some(process) = &self.process {
            process.signal(Signal::TERM);
        }
    }

    /// Makes tor read its torrc again and retry failed downloads at once.
    pub(super) fn reload(&self) {
        if let Some(process) = &self.process {
            process.signal(Signal::HUP);
        }
    }

    pub(super) fn check_alive(&mut self) -> Result<(), TestnetError> {
        match &mut self.process {
            Some(process) => process.check_alive(),
            None => Err(TestnetError::NodeExited {
                name: self.name.clone(),
                log_tail: String::new(),
            }),
        }
    }

    pub(super) fn is_bootstrapped(&self) -> bool {
        self.process.as_ref().is_some_and(Process::is_bootstrapped)
    }
}
