//! What a provider keeps on disk beside its database: the data directory and functions.

pub(crate) mod directory;
pub(crate) mod functions;
#[cfg(test)]
pub(crate) mod steps;
