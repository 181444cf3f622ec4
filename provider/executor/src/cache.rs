//! Compiled functions, bounded by their size, the least recently used go first.

use std::collections::HashMap;

use crate::{Function, FunctionDigest};

/// A set of functions.
pub(crate) struct Cache {
    bytes: usize,
    capacity: usize,
    clock: u64,
    entries: HashMap<FunctionDigest, Entry>,
}

struct Entry {
    function: Function,
    used: u64,
}

impl Cache {
    /// `capacity` is in bytes.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            bytes: 0,
            capacity,
            clock: 0,
            entries: HashMap::new(),
        }
    }

    pub(crate) fn get(&mut self, digest: &FunctionDigest) -> Option<Function> {
        self.clock += 1;
        let entry = self.entries.get_mut(digest)?;
        entry.used = self.clock;
        Some(entry.function.clone())
    }

    /// A function larger than the whole cache is not kept.
    pub(crate) fn insert(&mut self, function: &Function) {
        let size = function.compiled_bytes();
        if size > self.capacity {
            return;
        }
        self.remove(&function.digest());
        while self.bytes + size > self.capacity {
            let Some(oldest) = self.oldest() else { break };
            self.remove(&oldest);
        }
        self.clock += 1;
        self.bytes += size;
        let entry = Entry {
            function: function.clone(),
            used: self.clock,
        };
        self.entries.insert(function.digest(), entry);
    }

    fn oldest(&self) -> Option<FunctionDigest> {
        self.entries
            .iter()
            .min_by_key(|(_, entry)| entry.used)
            .map(|(digest, _)| *digest)
    }

    fn remove(&mut self, digest: &FunctionDigest) {
        if let Some(entry) = self.entries.remove(digest) {
            self.bytes -= entry.function.compiled_bytes();
        }
    }
}
