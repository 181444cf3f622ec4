//! The meter that holds a call to its memory.

use wasmtime::ResourceLimiter;

use crate::engine::{INSTANCES_PER_CALL, MEMORIES_PER_CALL, TABLE_ELEMENTS, TABLES_PER_CALL};

/// Counts the memories and tables of one call, and refuses growth beyond the limit.
///
/// Growth that was granted and then failed stays counted: the engine also reports failures of
/// growth it never asked about, so giving bytes back on a report would let a guest run its own
/// count down.
#[derive(Debug)]
pub(crate) struct MemoryMeter {
    largest: u64,
    limit: u64,
    total: u64,
    refused: bool,
    host_failed: bool,
}

impl MemoryMeter {
    /// `limit` is for all memories and tables, `largest` for each memory; both in bytes.
    pub(crate) fn new(limit: u64, largest: u64) -> Self {
        Self {
            largest,
            limit,
            total: 0,
            refused: false,
            host_failed: false,
        }
    }

    /// Bytes of all memories and tables; nothing ever shrinks, so this is also the peak.
    pub(crate) fn peak(&self) -> u64 {
        self.total
    }

    /// Whether growth was ever refused for these limits (and not for the module's own declared
    /// maximum).
    pub(crate) fn refused(&self) -> bool {
        self.refused
    }

    /// Whether this machine could not give what the limits allow. A guest would
    /// see growth fail that succeeds elsewhere, and another run would not
    /// have the same end.
    pub(crate) fn host_failed(&self) -> bool {
        self.host_failed
    }

    fn grow(&mut self, current: usize, desired: usize, unit: u64) -> bool {
        let more = (desired.saturating_sub(current) as u64).saturating_mul(unit);
        let total = self.total.saturating_add(more);
        if total > self.limit {
            self.refused = true;
            return false;
        }
        self.total = total;
        true
    }
}

impl ResourceLimiter for MemoryMeter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired as u64 > self.largest {
            self.refused = true;
            return Ok(false);
        }
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        Ok(self.grow(current, desired, 1))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS {
            self.refused = true;
            return Ok(false);
        }
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        Ok(self.grow(current, desired, size_of::<usize>() as u64))
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        if is_of_the_system(&error) {
            self.host_failed = true;
            return Err(error);
        }
        Ok(())
    }

    fn instances(&self) -> usize {
        INSTANCES_PER_CALL as usize
    }

    fn memories(&self) -> usize {
        MEMORIES_PER_CALL as usize
    }

    fn tables(&self) -> usize {
        TABLES_PER_CALL as usize
    }
}

/// Whether the operating system refused something.
pub(crate) fn is_of_the_system(error: &wasmtime::Error) -> bool {
    error.chain().any(|cause| cause.is::<std::io::Error>())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counts_memories_and_tables_together() -> wasmtime::Result<()> {
        let mut meter = MemoryMeter::new(1_000, 1_000);
        assert!(meter.memory_growing(0, 600, None)?);
        assert!(meter.table_growing(0, 40, None)?);
        assert_eq!(meter.peak(), 920);
        assert!(!meter.table_growing(40, 51, None)?);
        assert!(meter.refused());
        assert!(
            meter.memory_growing(0, 80, None)?,
            "a refusal changes nothing"
        );
        Ok(())
    }

    #[test]
    fn a_declared_maximum_is_no_refusal_of_ours() -> wasmtime::Result<()> {
        let mut meter = MemoryMeter::new(1_000, 1_000);
        assert!(!meter.memory_growing(0, 200, Some(100))?);
        assert!(!meter.table_growing(0, 20, Some(10))?);
        assert!(!meter.refused());
        assert_eq!(meter.peak(), 0);
        Ok(())
    }

    #[test]
    fn only_the_systems_refusals_are_no_guests_business() {
        let mut meter = MemoryMeter::new(1_000, 1_000);
        let of_the_guest = wasmtime::Error::msg("memory maximum size exceeded");
        assert!(meter.memory_grow_failed(of_the_guest).is_ok());
        assert!(!meter.host_failed());
        let of_the_host = std::io::Error::from(std::io::ErrorKind::OutOfMemory);
        let of_the_host = wasmtime::Error::from(of_the_host).context("growing");
        assert!(meter.memory_grow_failed(of_the_host).is_err());
        assert!(meter.host_failed());
    }

    proptest! {
        #[test]
        fn never_grants_more_than_the_limit(
            limit in 0u64..10_000,
            steps in proptest::collection::vec((any::<bool>(), 0usize..2_000, 0usize..4_000), 0..50),
        ) {
            let mut meter = MemoryMeter::new(limit, 3_000);
            let mut granted = 0u64;
            for (table, current, desired) in steps {
                let (ok, unit) = if table {
                    (meter.table_growing(current, desired, None), 8)
                } else {
                    (meter.memory_growing(current, desired, None), 1)
                };
                if ok.is_ok_and(|ok| ok) {
                    prop_assert!(table || desired <= 3_000);
                    granted += desired.saturating_sub(current) as u64 * unit;
                }
                prop_assert!(granted <= limit);
                prop_assert_eq!(granted, meter.peak());
            }
        }
    }
}
