//! Free loopback ports, held until the moment they are needed.

use std::net::{Ipv4Addr, TcpListener};

use super::TestnetError;

/// A free port; nobody else gets it while this value lives.
#[derive(Debug)]
pub(super) struct PortLease {
    port: u16,
    _listener: TcpListener,
}

impl PortLease {
    pub(super) fn new() -> Result<Self, TestnetError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(TestnetError::NoPort)?;
        let port = listener.local_addr().map_err(TestnetError::NoPort)?.port();
        Ok(Self {
            port,
            _listener: listener,
        })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Gives the port up for a process that is about to bind it.
    pub(super) fn release(self) -> u16 {
        self.port
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_ports_are_distinct() {
        let leases: Vec<_> = (0..64).map(|_| PortLease::new().unwrap()).collect();
        let ports: std::collections::HashSet<_> = leases.iter().map(PortLease::port).collect();
        assert_eq!(ports.len(), leases.len());
    }
}
