//! What work costs in fuel: a constant of the protocol, since a provider's bill and an auditor's
//! re-execution must agree to the last unit.

use wasmtime::{OperatorCost, VariableOperatorCost};

/// Each byte that the host copies for a guest: input, output, random numbers.
pub(crate) const PER_HOST_BYTE: u64 = 1;
/// Each reading of a clock, and each read or write, besides its bytes.
pub(crate) const PER_HOST_CALL: u64 = 50;
/// Each operator that is not named below.
const PER_OPERATOR: u8 = 1;

/// Makes the library's table of prices, and the same as names and numbers.
macro_rules! prices {
    (operators { $($operator:ident: $price:literal,)* } sizes { $($size:ident: $each:expr,)* }) => {
        /// The prices, for the library.
        pub(crate) fn prices() -> OperatorCost {
            OperatorCost {
                $($operator: $price,)*
                variable: VariableOperatorCost {
                    $($size: $each,)*
                    ..VariableOperatorCost::new()
                },
                ..OperatorCost::new()
            }
        }

        /// The prices, for the engine's profile.
        pub(crate) fn facts() -> Vec<(String, u64)> {
            let listed: &[(&str, u8)] = &[
                $((stringify!($operator), $price),)*
                $((stringify!($size), $each),)*
                ("per-operator", PER_OPERATOR),
            ];
            let listed = listed.iter().map(|(name, price)| ((*name).to_owned(), (*price).into()));
            let host = [
                ("per-host-byte".to_owned(), PER_HOST_BYTE),
                ("per-host-call".to_owned(), PER_HOST_CALL),
            ];
            listed.chain(host).collect()
        }
    };
}

// One for every operator that does something, and one for every byte or table element of the bulk
// operations. A page of new memory has to be cleared, which is why it costs what the largest price
// can be.
prices! {
    operators {
        Nop: 0,
        Drop: 0,
        Block: 0,
        Loop: 0,
        Unreachable: 0,
        Return: 0,
        Else: 0,
        End: 0,
    }
    sizes {
        memory_copy_per_byte: 1,
        memory_fill_per_byte: 1,
        memory_init_per_byte: 1,
        memory_grow_per_page: u8::MAX,
        table_copy_per_element: 1,
        table_fill_per_element: 1,
        table_init_per_element: 1,
        table_grow_per_element: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The library lists its prices in its debugging output only, so this test may depend on it;
    /// the engine's profile does not.
    #[test]
    fn every_operator_without_a_price_of_its_own_costs_one() {
        let prices = format!("{:?}", prices());
        let (operators, _) = prices.split_once("variable").expect("two parts");
        let operators = operators.trim_start_matches("OperatorCost {");
        let mut seen = 0;
        for field in operators
            .split(',')
            .filter(|field| !field.trim().is_empty())
        {
            let (name, price) = field.trim().split_once(": ").expect("a field");
            let own = facts().into_iter().find(|(known, _)| known == name);
            let expected = own.map_or_else(|| PER_OPERATOR.into(), |(_, price)| price);
            assert_eq!(price.parse(), Ok(expected), "{name}");
            seen += 1;
        }
        assert!(seen > 500, "{seen} operators");
    }
}
