//! What goes wrong in the helper.
//!
//! The texts are for people and for the log: they hold no address, no tag and
//! nothing that came over the network. That is why the SDK's own errors, which
//! name gateways and hosts, are sorted into [`Trouble`] and dropped.

use std::time::Duration;

use dlambda_nym_link::{LinkError, VERSION};
use nym_client_core::error::ClientCoreError;

/// The helper cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HelperError {
    /// The program that started the helper cannot be talked to.
    #[error("the link to D-Lambda is broken")]
    Link(#[from] LinkError),
    /// The first command must be [`Command::Start`](dlambda_nym_link::Command::Start).
    #[error("the first command was not to start")]
    NotStarted,
    /// The two programs come from different versions.
    #[error("D-Lambda speaks version {theirs} of the link, and this helper version {VERSION}")]
    Version {
        /// What the other program speaks.
        theirs: u16,
    },
    /// The base URL of the nym-api cannot be used.
    #[error("the address of the nym-api is not an http or https URL")]
    ApiUrl,
    /// The provider's directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A task of the SDK has panicked: the client may be deaf.
    #[error("something in the Nym client has panicked")]
    Panicked,
    /// The client hears nothing any more, not even itself.
    #[error("the Nym client hears nothing any more")]
    Deaf,
    /// The helper takes more memory than its sessions explain.
    #[error("the Nym helper has grown too large")]
    Grown,
    /// No client was connected in time.
    #[error("no Nym client could be connected within {} s: {cause}", .within.as_secs())]
    Unreachable {
        /// The time that was allowed.
        within: Duration,
        /// What went wrong last.
        cause: Trouble,
    },
}

/// The provider's directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DirectoryError {
    /// It cannot be made, looked at or locked.
    #[error("the directory of the Nym identity cannot be used: {}", .0.kind())]
    Io(#[from] std::io::Error),
    /// Its path leads to something else.
    #[error("the path of the Nym identity is not a directory")]
    NotADirectory,
    /// It belongs to another user.
    #[error("the directory of the Nym identity belongs to another user")]
    NotOurs,
    /// Others may look into it, and the keys in it are not encrypted.
    #[error("the directory of the Nym identity must have mode 0700")]
    Open,
    /// Another helper uses it.
    #[error("another helper uses this Nym identity")]
    InUse,
}

/// Why a client could not be connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Trouble {
    /// Nothing answered in time.
    #[error("the Nym network did not answer in time")]
    Late,
    /// The nym-api.
    #[error("the nym-api cannot be reached, or its answer cannot be used")]
    Api,
    /// The gateway.
    #[error("the gateway cannot be reached, or refuses this client")]
    Gateway,
    /// There are not enough nodes.
    #[error("the Nym network has too few nodes in operation")]
    Topology,
    /// The keys and the gateway's registration, on disk.
    #[error("the stored Nym identity cannot be read or written")]
    Storage,
    /// Anything else.
    #[error("the Nym client could not be started")]
    Other,
}

impl From<nym_sdk::Error> for Trouble {
    fn from(error: nym_sdk::Error) -> Self {
        use ClientCoreError as Core;
        match error {
            nym_sdk::Error::ClientCoreError(core) => match core {
                Core::ValidatorClientError(_)
                | Core::NymApiQueryFailure { .. }
                | Core::ResolutionFailed(_)
                | Core::ListOfNymApisIsEmpty
                | Core::InvalidUrl(_) => Self::Api,
                Core::GatewayClientError { .. }
                | Core::GatewayConnectionFailure { .. }
                | Core::GatewayConnectionAbruptlyClosed
                | Core::GatewayConnectionTimeout => Self::Gateway,
                Core::InsufficientNetworkTopology(_)
                | Core::NoGatewaysOnNetwork
                | Core::NoNewGatewaysAvailable
                | Core::NoGatewayWithId(_) => Self::Topology,
                Core::KeyStoreError { .. }
                | Core::GatewaysDetailsStoreError { .. }
                | Core::SurbStorageError { .. }
                | Core::IoError(_) => Self::Storage,
                _ => Self::Other,
            },
            nym_sdk::Error::IoError(_)
            | nym_sdk::Error::KeyStorageError { .. }
            | nym_sdk::Error::ReplyStorageError { .. }
            | nym_sdk::Error::CredentialStorageError { .. } => Self::Storage,
            nym_sdk::Error::GatewayDirectoryError(_) | nym_sdk::Error::NoNymAPIUrl => Self::Api,
            _ => Self::Other,
        }
    }
}
