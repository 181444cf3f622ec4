//! Arti's error kinds, as a caller needs them.

use arti_client::{ErrorKind as Tor, HasKind as _};

use crate::TransportError;

/// An error while starting: nothing but the network or this machine is involved.
pub(super) fn starting(error: arti_client::Error) -> TransportError {
    if is_local(error.kind()) {
        TransportError::Local(with_hint(&error))
    } else {
        TransportError::NetworkDown(error.into())
    }
}

/// An error while reaching an onion service.
pub(super) fn dialling(error: arti_client::Error) -> TransportError {
    match error.kind() {
        kind if is_local(kind) => TransportError::Local(with_hint(&error)),
        Tor::BootstrapRequired
        | Tor::DirectoryExpired
        | Tor::LocalNetworkError
        | Tor::NoPath
        | Tor::TorAccessFailed
        | Tor::TorDirectoryUnusable => TransportError::NetworkDown(error.into()),
        Tor::OnionServiceAddressInvalid => TransportError::WrongEndpoint,
        _ => TransportError::Unreachable(error.into()),
    }
}

fn is_local(kind: Tor) -> bool {
    matches!(
        kind,
        Tor::CacheAccessFailed
            | Tor::CacheCorrupted
            | Tor::FsPermissions
            | Tor::InvalidConfig
            | Tor::KeystoreAccessFailed
            | Tor::KeystoreCorrupted
            | Tor::LocalResourceAlreadyInUse
            | Tor::LocalResourceExhausted
            | Tor::NoHomeDirectory
            | Tor::PersistentStateAccessFailed
            | Tor::PersistentStateCorrupted
    )
}

/// Arti knows which file has which wrong permission; its hint is the best text.
fn with_hint(error: &arti_client::Error) -> crate::error::Cause {
    match error.hint() {
        Some(hint) => hint.to_string().into(),
        None => error.to_string().into(),
    }
}
