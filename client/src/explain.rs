//! Sentences for people about how a function ended. They are made here and nowhere else: what
//! travels and what is signed are numbers.

use dlambda_proto::{PlanName, StopKind};

/// Why a function was stopped, to be read after `the function was stopped:`.
///
/// `limit` is the limit of the plan that it reached: fuel, milliseconds or bytes.
#[must_use]
pub fn stop_reason(kind: StopKind, limit: Option<u64>, plan: &PlanName) -> String {
    let amount = limit.map_or_else(|| "all".to_owned(), |limit| limit.to_string());
    let trap = match kind {
        StopKind::Fuel => return format!("it used up the {amount} fuel of plan {plan}"),
        StopKind::Deadline => return format!("it ran longer than the {amount} ms of plan {plan}"),
        StopKind::Memory => {
            return format!("it needed more than the {amount} bytes of memory of plan {plan}");
        }
        StopKind::Output => {
            return format!("it wrote more than the {amount} bytes of output of plan {plan}");
        }
        StopKind::NoResponse => return "it returned without a complete HTTP response".to_owned(),
        StopKind::BadResponse => {
            return "its HTTP response has a head that cannot be sent".to_owned();
        }
        StopKind::BadSignature => "a table entry of another signature was called",
        StopKind::HostCall => "a host function was misused",
        StopKind::IndirectCallToNull => "an empty table entry was called",
        StopKind::IntegerDivisionByZero => "integer division by zero",
        StopKind::IntegerOverflow => "integer overflow",
        StopKind::InvalidConversion => "a NaN was converted to an integer",
        StopKind::MemoryOutOfBounds => "memory was touched beyond its end",
        StopKind::OtherTrap => "another trap",
        StopKind::StackOverflow => "stack overflow",
        StopKind::TableOutOfBounds => "a table was touched beyond its end",
        StopKind::Unreachable => "`unreachable` was executed",
        other => {
            let code = other.code();
            return format!("for a reason that this program does not know (number {code})");
        }
    };
    format!("it trapped: {trap}")
}

#[cfg(test)]
mod tests {
    use dlambda_executor::replay;
    use dlambda_proto::Plan;

    use super::*;

    #[test]
    fn limits_are_named_with_their_value() {
        let plan = &Plan::standard_menu()[0];
        for (kind, said) in [
            (StopKind::Deadline, "the 10000 ms of plan small"),
            (StopKind::Fuel, "the 5000000000 fuel of plan small"),
            (
                StopKind::Memory,
                "the 67108864 bytes of memory of plan small",
            ),
            (
                StopKind::Output,
                "the 1048576 bytes of output of plan small",
            ),
            (StopKind::NoResponse, "without a complete HTTP response"),
            (StopKind::BadResponse, "cannot be sent"),
            (StopKind::Unreachable, "unreachable"),
            (StopKind::StackOverflow, "stack overflow"),
            (StopKind::Other(999), "number 999"),
        ] {
            let reason = stop_reason(kind, replay::limit(kind, plan), &plan.name);
            assert!(reason.contains(said), "{reason}");
        }
    }

    #[test]
    fn no_two_kinds_have_one_sentence() {
        let plan = &Plan::standard_menu()[0];
        let sentence = |kind: &StopKind| stop_reason(*kind, None, &plan.name);
        let mut sentences: Vec<_> = StopKind::ALL.iter().map(sentence).collect();
        sentences.sort();
        sentences.dedup();
        assert_eq!(sentences.len(), StopKind::ALL.len());
    }
}
