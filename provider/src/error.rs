//! What can keep a provider from serving.

use std::io;
use std::path::PathBuf;

use dlambda_crypto::TokenError;
use dlambda_node::NodeError;
use dlambda_privacy::{ExchangeError, TransportError};
use dlambda_proto::{AdvertError, ErrorKind, HasKind, Retry};
use thiserror::Error;
use tokio::task::JoinError;

use crate::store::StoreError;

/// Why a provider cannot start, or stopped.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProviderError {
    /// A file or directory has the wrong owner or permissions, or cannot be used.
    #[error("{}: {source}", path.display())]
    Data {
        /// What it is about.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another provider runs on the same data directory.
    #[error("another provider already runs on {}", .0.display())]
    InUse(PathBuf),
    /// A file in the functions directory is no function we can run.
    #[error("{}: {reason}", path.display())]
    Function {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The configuration.
    #[error(transparent)]
    Config(#[from] crate::ConfigError),
    /// The engine that runs functions cannot start.
    #[error("the WebAssembly engine cannot start: {0}")]
    Executor(#[from] dlambda_executor::ExecutorError),
    /// The anonymity network.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The overlay.
    #[error("the overlay: {0}")]
    Overlay(#[from] NodeError),
    /// The overlay's catalogue on disk.
    #[error("the catalogue of the overlay")]
    Catalogue(#[source] dlambda_broker::StoreError),
    /// The advert cannot be made; the configuration breaks one of its bounds.
    #[error("the advert cannot be made: {0}")]
    Advert(#[from] AdvertError),
    /// The contracts and spent tokens on disk.
    #[error("the store: {0}")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The epoch's token keys cannot be made.
    #[error(transparent)]
    Tokens(#[from] TokenError),
    /// A task was ended before its time.
    #[error("interrupted while starting an epoch")]
    Interrupted,
    /// A part of the provider panicked, and the others cannot go on without it.
    #[error("the service \"{0}\" of this provider panicked")]
    ServicePanicked(&'static str),
    /// A part of the provider ended, and the others cannot go on without it.
    #[error("the service \"{0}\" of this provider ended unexpectedly")]
    ServiceEnded(&'static str),
    /// The provider could not call itself through the network.
    #[error("a call to ourselves through the network failed")]
    SelfTest(#[source] ExchangeError),
    /// The provider answered itself wrongly.
    #[error("a call to ourselves came back with the wrong answer")]
    SelfTestAnswer,
}

impl ProviderError {
    pub(crate) fn data(
        path: impl Into<PathBuf>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Data {
            path: path.into(),
            source: source.into(),
        }
    }

    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::data(path, error)
    }
}

impl From<StoreError> for ProviderError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.into())
    }
}

impl From<JoinError> for ProviderError {
    /// The text of a panic is written where it happens, and may hold anything: it is not kept.
    fn from(_: JoinError) -> Self {
        Self::Interrupted
    }
}

impl HasKind for ProviderError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Data { .. } | Self::InUse(_) => ErrorKind::Local,
            Self::Function { .. } | Self::Advert(_) => ErrorKind::Usage,
            Self::Config(error) => error.kind(),
            Self::Executor(_) => ErrorKind::Local,
            Self::Catalogue(_) | Self::Store(_) => ErrorKind::Local,
            Self::SelfTestAnswer
            | Self::Interrupted
            | Self::ServicePanicked(_)
            | Self::ServiceEnded(_) => ErrorKind::Bug,
            Self::Overlay(error) => error.kind(),
            Self::Tokens(error) => error.kind(),
            Self::Transport(error) => error.kind(),
            Self::SelfTest(error) => error.kind(),
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Config(error) => error.retry(),
            Self::Overlay(error) => error.retry(),
            Self::Tokens(error) => error.retry(),
            Self::Transport(error) => error.retry(),
            Self::SelfTest(error) => error.retry(),
            Self::Catalogue(_)
            | Self::Data { .. }
            | Self::Executor(_)
            | Self::InUse(_)
            | Self::Interrupted
            | Self::ServiceEnded(_)
            | Self::ServicePanicked(_)
            | Self::Store(_) => Retry::Later,
            Self::Advert(_) | Self::Function { .. } | Self::SelfTestAnswer => Retry::Never,
        }
    }
}
