//! What work costs in fuel: a constant of the protocol, since a provider's bill and an auditor's re-execution must
//! agree to the last unit.

use wasmtime::{OperatorCost, VariableOperatorCost};

/// Each byte that the host copies for a guest: input, output, random numbers.
pub(crate) const PER_HOST_BYTE: u64 = 1;
/// Each reading of a clock, and each read or write, besides its bytes.
pub(crate) const PER_HOST_CALL: u64 = 50;

/// One for every operator that does something, and one for every byte or table element of the bulk operations. A page
/// of new memory has to be cleared, which is why it costs what the largest price can be.
pub(crate) fn prices() -> OperatorCost {
    OperatorCost {
        Nop: 0,
        Drop: 0,
        Block: 0,
        Loop: 0,
        Unreachable: 0,
        Return: 0,
        Else: 0,
        End: 0,
        variable: VariableOperatorCost {
            memory_copy_per_byte: 1,
            memory_fill_per_byte: 1,
            memory_init_per_byte: 1,
            memory_grow_per_page: u8::MAX,
            table_copy_per_element: 1,
            table_fill_per_element: 1,
            table_init_per_element: 1,
            table_grow_per_element: 1,
            ..VariableOperatorCost::new()
        },
        ..OperatorCost::new()
    }
}
