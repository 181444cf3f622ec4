//! What can go wrong with a network of our own.

use std::net::SocketAddr;

use thiserror::Error;

/// Why a mixnet did not start or did not do what it was told.
#[derive(Debug, Error)]
pub enum MixnetError {
    /// A number of nodes outside what is allowed.
    #[error("{what} must be 1 to {max}, not {asked}")]
    Size {
        /// What the number is of.
        what: &'static str,
        /// What was asked for.
        asked: usize,
        /// The most there may be.
        max: usize,
    },
    /// A loss that is no probability.
    #[error("the loss must be a probability from 0 up to, not including, 1; not {0}")]
    Loss(f64),
    /// An address that could not be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A gateway that does not exist.
    #[error("there is no gateway {asked}: there are {gateways}, counted from 0")]
    NoSuchGateway {
        /// The number given.
        asked: usize,
        /// How many there are.
        gateways: usize,
    },
    /// A gateway that was to stop is down already.
    #[error("gateway {0} is not running")]
    GatewayDown(usize),
    /// A gateway that was to start runs already.
    #[error("gateway {0} is running")]
    GatewayUp(usize),
    /// The capture file could not be created.
    #[error("cannot create the capture file")]
    Capture(#[source] std::io::Error),
}
