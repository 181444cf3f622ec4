//! Epochs: their keys and adverts, what was seen under them, and what a contract costs now.

pub(crate) mod advert;
pub(crate) mod effort;
pub(crate) mod keyring;
pub(crate) mod keys;
mod replay;
