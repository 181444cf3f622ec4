//! What is known and what is chosen.

use super::*;

#[test]
fn one_catalogue_is_taken_whole_and_of_the_same_others_nothing_but_manifests() {
    let all = listings(40);
    let mut world = World::new(
        nodes(2, &all, Conduct::Honest),
        nodes(6, &all, Conduct::Honest),
    );
    let synced = world.sync(1).unwrap();
    assert_eq!(chosen(&synced).len(), 40);
    assert_eq!((synced.answered, synced.faults.len()), (5, 0));
    assert!(synced.known.iter().all(|it| it.votes == 5));
    let manifests = world.asks.iter().filter(|(_, it)| *it == Ask::Manifest);
    assert_eq!((manifests.count(), world.asks.len()), (5, 6));
}

#[test]
fn sources_that_differ_a_little_are_asked_for_the_difference() {
    let all = listings(60);
    let others = (0..6).map(|it| {
        let mut all = all.clone();
        all.remove(it);
        node(&all, Conduct::Honest)
    });
    let mut world = World::new(nodes(2, &all, Conduct::Honest), others.collect());
    let synced = world.sync(1).unwrap();
    assert_eq!(chosen(&synced).len(), 60);
    let chunks = world.asks.iter();
    let chunks = chunks.filter(|(_, it)| matches!(it, Ask::Chunk(..)));
    assert_eq!(chunks.count(), 1);
    assert!(world.asks.len() < 5 + 1 + 12, "{}", world.asks.len());
}

#[test]
fn a_canary_is_known_and_not_chosen() {
    let all = listings(60);
    let mut canary = Provider::new(7_000);
    let with_canary = [&all[..], &[canary.publish(NOON)]].concat();
    let mut others = nodes(2, &all, Conduct::Honest);
    others.push(node(&with_canary, Conduct::Honest));
    let mut world = World::new(nodes(2, &all, Conduct::Honest), others);
    let synced = world.sync(1).unwrap();
    let known = synced
        .known
        .iter()
        .find(|it| it.listing.provider == canary.id());
    let known = known.expect("the canary is known");
    assert!(!known.is_chosen && known.votes == 1);
    assert_eq!(chosen(&synced).len(), 60);
    // Nor if one bootstrap node alone shows it.
    let mut bootstrap = nodes(1, &all, Conduct::Honest);
    bootstrap.push(node(&with_canary, Conduct::Honest));
    let mut world = World::new(bootstrap, nodes(3, &all, Conduct::Honest));
    let synced = world.sync(1).unwrap();
    assert_eq!((synced.known.len(), chosen(&synced).len()), (61, 60));
    // Nor if all but the bootstrap nodes show it.
    let mut world = World::new(
        nodes(2, &all, Conduct::Honest),
        nodes(3, &with_canary, Conduct::Honest),
    );
    let synced = world.sync(1).unwrap();
    assert_eq!((synced.known.len(), chosen(&synced).len()), (61, 60));
}

#[test]
fn a_successor_that_one_source_shows_is_not_chosen_but_counts_for_its_provider() {
    let all = listings(60);
    let mut marked = Provider::new(7_000);
    let first = marked.publish(NOON - HOUR);
    let second = marked.publish(NOON);
    let before = [&all[..], std::slice::from_ref(&first)].concat();
    let after = [&all[..], std::slice::from_ref(&second)].concat();
    let the_one = |world: &mut World| {
        let synced = world.sync(1).unwrap();
        let mut known = synced.known.into_iter();
        known.find(|it| it.listing.provider == marked.id()).unwrap()
    };
    let mut others = nodes(2, &before, Conduct::Honest);
    others.push(node(&after, Conduct::Honest));
    let mut world = World::new(nodes(2, &before, Conduct::Honest), others);
    let known = the_one(&mut world);
    assert!(known.is_chosen && known.votes == 5);
    assert!(known.signed == first);
    // When most have the successor, it is chosen.
    let mut others = nodes(1, &before, Conduct::Honest);
    others.extend(nodes(2, &after, Conduct::Honest));
    let mut bootstrap = nodes(1, &before, Conduct::Honest);
    bootstrap.extend(nodes(1, &after, Conduct::Honest));
    let known = the_one(&mut World::new(bootstrap, others));
    assert!(known.is_chosen && known.signed == second);
}

/// A successor for one guest, on the provider's regular chain, so that nothing ever contradicts it.
#[test]
fn a_successor_that_all_but_the_bootstrap_nodes_show_is_not_chosen() {
    let all = listings(60);
    let mut marked = Provider::new(7_000);
    let first = marked.publish(NOON - HOUR);
    let second = marked.publish(NOON);
    let before = [&all[..], std::slice::from_ref(&first)].concat();
    let after = [&all[..], std::slice::from_ref(&second)].concat();
    for bootstrap in [1, 2] {
        let mut world = World::new(
            nodes(bootstrap, &before, Conduct::Honest),
            nodes(5 - bootstrap, &after, Conduct::Honest),
        );
        let synced = world.sync(1).unwrap();
        let mut known = synced.known.into_iter();
        let known = known.find(|it| it.listing.provider == marked.id()).unwrap();
        assert!(known.is_chosen && known.signed == first, "{bootstrap}");
    }
}

#[test]
fn a_provider_that_shows_two_listings_to_two_sources_is_out() {
    let all = listings(60);
    let provider = Provider::new(7_000);
    let one = provider.next(NOON);
    let mut other = one.clone();
    other.plans[0].price += 1;
    let one = [&all[..], &[provider.sign(&one)]].concat();
    let other = [&all[..], &[provider.sign(&other)]].concat();
    let mut others = nodes(2, &one, Conduct::Honest);
    others.push(node(&other, Conduct::Honest));
    let mut world = World::new(nodes(2, &one, Conduct::Honest), others);
    let synced = world.sync(1).unwrap();
    assert_eq!((synced.found.len(), synced.forks.len()), (1, 1));
    assert_eq!(synced.found[0].verify(rules(1).network), Ok(provider.id()));
    assert!(
        synced
            .known
            .iter()
            .all(|it| it.listing.provider != provider.id())
    );
    // A proof that one source has is enough, and is no find.
    let mut others = nodes(2, &one, Conduct::Honest);
    let mut told = node(&one, Conduct::Honest);
    let proof = synced.found[0].clone();
    told.state.catalogue.insert_fork(proof, at(NOON)).unwrap();
    others.push(told);
    let mut world = World::new(nodes(2, &one, Conduct::Honest), others);
    let synced = world.sync(1).unwrap();
    assert_eq!((synced.found.len(), synced.forks.len()), (0, 1));
    assert!(
        synced
            .known
            .iter()
            .all(|it| it.listing.provider != provider.id())
    );
    assert!(synced.faults.is_empty());
}
