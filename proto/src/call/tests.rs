use proptest::prelude::*;

use super::*;
use crate::{decode, encode};

#[test]
fn arguments_are_bounded_before_they_are_kept() {
    let mut request = Request {
        function: FunctionSource::Attached(vec![]),
        args: vec![String::new(); Request::MAX_ARGS],
        input: vec![],
        seed: [0; 32],
        http: None,
        token: None,
    };
    assert!(decode::<Request>(&encode(&request)).is_ok());
    request.args.push(String::new());
    assert!(decode::<Request>(&encode(&request)).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_decoding_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode::<Request>(&bytes);
        let _ = decode::<Reply>(&bytes);
        let _ = decode::<CallEnvelope>(&bytes);
        let _ = decode::<crate::SignedAdvert>(&bytes);
        let _ = decode::<Refusal>(&bytes);
    }

    #[test]
    fn times_in_replies_are_of_few_values_and_never_too_short(queue_us: u64, execute_us: u64, less in 0..1_u64 << 40) {
        let usage = Usage { fuel: 1, queue_us, execute_us, ..Usage::default() };
        let coarse = usage.coarse();
        prop_assert_eq!(Usage { queue_us, execute_us, ..coarse }, usage, "nothing else changes");
        prop_assert_eq!(coarse.coarse(), coarse);
        for (exact, told) in [(queue_us, coarse.queue_us), (execute_us, coarse.execute_us), (less, usage::coarse(less))] {
            prop_assert!(told >= exact);
            let steps = told / Usage::LEAST_TIME_US;
            let is_step = told % Usage::LEAST_TIME_US == 0 && (steps == 0 || steps.is_power_of_two());
            prop_assert!(is_step || told == u64::MAX, "{}", told);
            prop_assert!(exact == 0 || told <= exact.saturating_mul(2).max(Usage::LEAST_TIME_US) || told == u64::MAX);
        }
    }

    #[test]
    fn requests_survive_the_wire(input: Vec<u8>, args: Vec<String>, attached: Vec<u8>) {
        let request = Request { function: FunctionSource::Attached(attached), args, input, seed: [1; 32], http: None, token: None };
        prop_assert_eq!(decode::<Request>(&encode(&request)), Ok(request));
    }
}
