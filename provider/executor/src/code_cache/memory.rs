//! Which functions are kept in memory.
//!
//! GreedyDual-Size with Frequency (Cherkasova, 1998): a function is worth its number of uses for
//! each byte it takes, and everything ages as others are let go. Measured demand alone decides, and
//! one large function that nobody calls does not push out a hundred small ones that are called.
//! Functions that the operator publishes are never let go.

use std::collections::HashMap;

use dlambda_proto::FunctionId;

use crate::Function;

/// Functions at most, however small: each takes two of the descriptors that a worker may have, and
/// calls need code that is kept no longer.
const MOST: usize = 400;

/// A set of functions, bounded by their size and number.
pub(crate) struct MemoryCache {
    bytes: u64,
    capacity: u64,
    /// The priority of the last one let go.
    age: f64,
    entries: HashMap<FunctionId, Entry>,
}

struct Entry {
    function: Function,
    uses: f64,
    priority: f64,
    pinned: bool,
}

impl MemoryCache {
    /// `capacity` is in bytes.
    pub(crate) fn new(capacity: u64) -> Self {
        Self {
            bytes: 0,
            capacity,
            age: 0.0,
            entries: HashMap::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn get(&mut self, id: &FunctionId) -> Option<Function> {
        let age = self.age;
        let entry = self.entries.get_mut(id)?;
        entry.uses += 1.0;
        entry.priority = age + worth(entry.uses, entry.function.compiled_bytes());
        Some(entry.function.clone())
    }

    /// Keeps a function from now on, whatever its demand.
    pub(crate) fn pin(&mut self, id: &FunctionId) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.pinned = true;
        }
    }

    /// A function larger than the whole set is not kept.
    pub(crate) fn insert(&mut self, function: &Function) {
        let size = function.compiled_bytes();
        if size > self.capacity {
            return;
        }
        let pinned = self.remove(&function.id());
        while !self.has_room(size) {
            let Some((id, priority)) = self.least() else {
                break;
            };
            self.remove(&id);
            self.age = priority;
        }
        if !self.has_room(size) {
            return;
        }
        self.bytes += size;
        let entry = Entry {
            function: function.clone(),
            uses: 1.0,
            priority: self.age + worth(1.0, size),
            pinned,
        };
        self.entries.insert(function.id(), entry);
    }

    fn has_room(&self, size: u64) -> bool {
        self.bytes + size <= self.capacity && self.entries.len() < MOST
    }

    fn least(&self) -> Option<(FunctionId, f64)> {
        self.entries
            .iter()
            .filter(|(_, entry)| !entry.pinned)
            .min_by(|(_, a), (_, b)| a.priority.total_cmp(&b.priority))
            .map(|(id, entry)| (*id, entry.priority))
    }

    /// Whether it was there and pinned.
    fn remove(&mut self, id: &FunctionId) -> bool {
        let Some(entry) = self.entries.remove(id) else {
            return false;
        };
        self.bytes -= entry.function.compiled_bytes();
        entry.pinned
    }
}

#[allow(clippy::cast_precision_loss, reason = "an estimate")]
fn worth(uses: f64, size: u64) -> f64 {
    uses / (size.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> FunctionId {
        FunctionId::from_digest([number; 32])
    }

    fn function(number: u8, size: usize) -> Function {
        Function::for_test(id(number), size)
    }

    fn cached(set: &mut MemoryCache, number: u8) -> bool {
        // Without counting it as a use.
        set.entries.contains_key(&id(number))
    }

    #[test]
    fn the_least_used_go_first() {
        let mut set = MemoryCache::new(300);
        for number in 1..=3 {
            set.insert(&function(number, 100));
        }
        for number in [1, 3, 3] {
            assert!(set.get(&id(number)).is_some());
        }
        set.insert(&function(4, 100));
        assert!(!cached(&mut set, 2));
        assert!(cached(&mut set, 1) && cached(&mut set, 3) && cached(&mut set, 4));
        assert_eq!((set.bytes(), set.len()), (300, 3));
    }

    #[test]
    fn popularity_fades_once_others_come_and_go() {
        let mut set = MemoryCache::new(200);
        set.insert(&function(1, 100));
        for _ in 0..20 {
            set.get(&id(1));
        }
        let mut lasted = 0;
        for number in 2..=100 {
            set.insert(&function(number, 100));
            set.get(&id(number));
            lasted += usize::from(cached(&mut set, 1));
        }
        assert!((5..50).contains(&lasted), "{lasted}");
    }

    #[test]
    fn a_large_unused_one_does_not_push_out_small_ones() {
        let mut set = MemoryCache::new(1_000);
        for number in 1..=9 {
            set.insert(&function(number, 100));
            set.get(&id(number));
        }
        set.insert(&function(10, 100));
        set.insert(&function(11, 100));
        assert!(!cached(&mut set, 10), "used once, by its maker");
        assert_eq!(
            (1..=9).filter(|number| cached(&mut set, *number)).count(),
            9
        );
    }

    #[test]
    fn small_ones_are_counted() {
        let mut set = MemoryCache::new(1 << 30);
        for number in 0..600_u32 {
            let mut digest = [0; 32];
            digest[..4].copy_from_slice(&number.to_le_bytes());
            set.insert(&Function::for_test(FunctionId::from_digest(digest), 1));
        }
        assert_eq!(set.len(), MOST);
    }

    #[test]
    fn pinned_ones_stay_and_the_bound_holds() {
        let mut set = MemoryCache::new(300);
        set.insert(&function(1, 200));
        set.pin(&id(1));
        for number in 2..=20 {
            set.insert(&function(number, 100));
            for _ in 0..number {
                set.get(&id(number));
            }
        }
        assert!(cached(&mut set, 1));
        assert!(set.bytes() <= 300);
        set.insert(&function(21, 301));
        assert!(!cached(&mut set, 21), "larger than the set");
    }
}
