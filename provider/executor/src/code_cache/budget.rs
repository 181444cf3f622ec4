//! How much compiled code there is, kept warm or in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of compiled code that may exist at a time. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct CodeBudget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: u64,
    used: AtomicU64,
}

/// A part of the budget, until dropped.
#[derive(Debug)]
pub(crate) struct CodeShare {
    budget: CodeBudget,
    bytes: u64,
}

impl CodeBudget {
    pub(crate) fn new(limit: u64) -> Self {
        Self(Arc::new(Inner {
            limit,
            used: AtomicU64::new(0),
        }))
    }

    /// So many bytes, if they are left.
    pub(crate) fn take(&self, bytes: u64) -> Option<CodeShare> {
        let more = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.0.limit);
        let order = Ordering::Relaxed;
        self.0.used.fetch_update(order, order, more).ok()?;
        Some(CodeShare {
            budget: self.clone(),
            bytes,
        })
    }
}

impl Drop for CodeShare {
    fn drop(&mut self) {
        self.budget.0.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_never_more_code_than_the_budget() {
        let budget = CodeBudget::new(100);
        let (first, _second) = (budget.take(60).unwrap(), budget.take(40).unwrap());
        assert!(budget.take(1).is_none());
        assert!(budget.take(u64::MAX).is_none());
        drop(first);
        assert!(budget.take(61).is_none());
        assert!(budget.take(60).is_some());
    }
}
