//! Why a configuration cannot be used.

use dlambda_executor::ProgramError;
use dlambda_proto::{ErrorKind, HasKind, Retry};
use thiserror::Error;

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It cannot be read.
    #[error("the configuration cannot be read: {0}")]
    Read(#[source] std::io::Error),
    /// It is not of this form.
    #[error("{0}")]
    Syntax(#[from] toml::de::Error),
    /// A value makes no sense.
    #[error("`{setting}` {problem}")]
    Value {
        /// The setting, with its table.
        setting: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The program that runs functions is not where it should be.
    #[error("{0}")]
    NoExecutor(#[from] ProgramError),
}

impl HasKind for ConfigError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Read(_) | Self::NoExecutor(_) => ErrorKind::Local,
            Self::Syntax(_) | Self::Value { .. } => ErrorKind::Usage,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Read(_) | Self::NoExecutor(_) => Retry::Later,
            Self::Syntax(_) | Self::Value { .. } => Retry::Never,
        }
    }
}
