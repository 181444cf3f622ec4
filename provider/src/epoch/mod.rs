//! Epochs: their keys and adverts, and what a contract costs now.

pub(crate) mod effort;
pub(crate) mod keyring;
