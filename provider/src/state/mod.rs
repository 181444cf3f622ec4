//! What a provider keeps on disk beside its database: the data directory and functions.

pub(crate) mod demand;
pub(crate) mod directory;
pub(crate) mod functions;
pub(crate) mod preloaded;
#[cfg(test)]
pub(crate) mod steps;
