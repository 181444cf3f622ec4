//! Statements of how often functions are called.

use dlambda_proto::{FunctionDemand, NetworkId, SignedFunctionDemand};

use super::*;
use crate::{Inserted, Refusal};

fn statement(provider: &Provider, day: u64, calls: u64) -> SignedFunctionDemand {
    of_network(NETWORK, provider, day, calls)
}

fn of_network(
    network: NetworkId,
    provider: &Provider,
    day: u64,
    calls: u64,
) -> SignedFunctionDemand {
    let counts = [(FunctionId::of(b"f"), calls)];
    let demand = FunctionDemand::of_counts(network, provider.id(), Day(day), counts);
    demand.unwrap().sign(provider.key()).unwrap()
}

#[test]
fn a_listed_provider_has_one_statement_a_day_and_the_latest_is_kept_for_two_days() {
    let mut provider = Provider::new(1);
    let mut catalogue = catalogue(10);
    catalogue.insert(provider.publish(NOON), at(NOON)).unwrap();
    let mut put = |day: u64, calls: u64| {
        catalogue.insert_function_demand(statement(&provider, day, calls), at(NOON))
    };
    assert_eq!(put(DAY - 2, 64), Ok(Inserted::New));
    assert_eq!(put(DAY - 2, 64), Ok(Inserted::Known));
    assert_eq!(put(DAY - 2, 128), Err(Refusal::OverQuota));
    assert_eq!(put(DAY - 1, 256), Ok(Inserted::Renewed));
    assert_eq!(put(DAY - 2, 64), Err(Refusal::Superseded));
    let held: Vec<_> = catalogue.function_demands(at(NOON)).collect();
    assert_eq!(held.len(), 1);
    assert_eq!(held[0].functions[0].calls.at_least(), 256);
    assert_eq!(catalogue.function_demands(at(NOON + 48 * HOUR)).count(), 0);
}

#[test]
fn every_bad_statement_has_its_refusal() {
    let mut listed = Provider::new(1);
    let mut catalogue = catalogue(10);
    catalogue.insert(listed.publish(NOON), at(NOON)).unwrap();
    let mut stranger = Provider::new(2);
    stranger.publish(NOON);
    let mut forged = dlambda_proto::encode(&statement(&listed, DAY - 1, 64));
    *forged.last_mut().unwrap() ^= 1;
    let elsewhere = of_network(NetworkId::from_bytes([8; 16]), &listed, DAY - 1, 64);
    let table = [
        (statement(&stranger, DAY - 1, 64), Refusal::Unlisted),
        (statement(&listed, DAY, 64), Refusal::Early),
        (statement(&listed, DAY - 3, 64), Refusal::Expired),
        (elsewhere, Refusal::OtherNetwork),
        (dlambda_proto::decode(&forged).unwrap(), Refusal::Forged),
    ];
    for (statement, refusal) in table {
        let refused = catalogue.insert_function_demand(statement, at(NOON));
        assert_eq!(refused, Err(refusal));
    }
    assert_eq!(catalogue.function_demands(at(NOON)).count(), 0);
}

#[test]
fn the_statement_of_a_provider_that_is_out_goes_with_it() {
    let mut provider = Provider::new(1);
    let mut catalogue = catalogue(10);
    let mut other: Listing = provider.next(NOON);
    other.plans[0].price += 1;
    catalogue.insert(provider.publish(NOON), at(NOON)).unwrap();
    let it = statement(&provider, DAY - 1, 64);
    catalogue.insert_function_demand(it, at(NOON)).unwrap();
    assert!(catalogue.insert(provider.sign(&other), at(NOON)).is_err());
    assert_eq!(catalogue.function_demands(at(NOON)).count(), 0);
}
