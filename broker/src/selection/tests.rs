use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng as _;

use super::*;

/// What sums of a few dozen probabilities may differ by.
const ROUNDING: f64 = 1e-12;

fn bounds() -> impl Strategy<Value = Vec<f64>> {
    let odd = prop_oneof![Just(0.0), Just(1.0), Just(-1.0), Just(7.0), Just(f64::NAN)];
    vec(prop_oneof![8 => 0.0..1.0_f64, 1 => odd], 0..14)
}

/// Any number of each group, in any order.
fn prospects() -> impl Strategy<Value = Vec<Prospect>> {
    let all = (bounds(), bounds()).prop_map(|(known, newcomers)| {
        let known = known.into_iter().map(Prospect::known);
        let newcomers = newcomers.into_iter().map(Prospect::newcomer);
        known.chain(newcomers).collect::<Vec<_>>()
    });
    all.prop_shuffle()
}

fn count_known(prospects: &[Prospect]) -> usize {
    prospects.iter().filter(|it| !it.is_newcomer).count()
}

fn share_of_newcomers(prospects: &[Prospect], probabilities: &[f64]) -> f64 {
    let both = prospects.iter().zip(probabilities);
    let newcomers = both.filter(|(it, _)| it.is_newcomer);
    newcomers.map(|(_, probability)| probability).sum()
}

proptest! {
    #[test]
    fn probabilities_sum_to_one_and_all_are_above_zero(prospects in prospects()) {
        let probabilities = probabilities(&prospects);
        prop_assert_eq!(probabilities.len(), prospects.len());
        prop_assert!(probabilities.iter().all(|it| *it > 0.0));
        let sum: f64 = probabilities.iter().sum();
        prop_assert!(prospects.is_empty() || (sum - 1.0).abs() < ROUNDING, "{}", sum);
    }

    #[test]
    fn a_greater_bound_raises_no_other_of_the_group(
        prospects in prospects(),
        which in any::<prop::sample::Index>(),
        bound in -0.1..1.1_f64,
    ) {
        prop_assume!(!prospects.is_empty());
        let which = which.index(prospects.len());
        let (mut less, mut more) = (prospects.clone(), prospects);
        let before = less[which].lower_bound.max(0.0);
        less[which].lower_bound = before.min(bound);
        more[which].lower_bound = before.max(bound);
        let (before, after) = (probabilities(&less), probabilities(&more));
        prop_assert!(after[which] >= before[which] - ROUNDING);
        for (index, other) in less.iter().enumerate() {
            if index != which && other.is_newcomer == less[which].is_newcomer {
                prop_assert!(after[index] <= before[index] + ROUNDING, "{}", index);
            }
        }
    }

    #[test]
    fn in_a_group_the_greater_bound_has_the_greater_probability(prospects in prospects()) {
        let probabilities = probabilities(&prospects);
        for (one, its) in prospects.iter().zip(&probabilities) {
            for (other, others) in prospects.iter().zip(&probabilities) {
                if one.is_newcomer == other.is_newcomer && one.lower_bound <= other.lower_bound {
                    prop_assert!(*its <= others + ROUNDING);
                }
            }
        }
    }

    #[test]
    fn of_eight_or_more_none_has_over_a_quarter(prospects in prospects()) {
        prop_assume!(prospects.len() >= 8);
        let known = count_known(&prospects);
        let probabilities = probabilities(&prospects);
        for (prospect, probability) in prospects.iter().zip(probabilities) {
            if prospect.is_newcomer || known == 0 || known >= 4 {
                prop_assert!(probability <= 0.25 + ROUNDING, "{}", probability);
            } else {
                // Fewer known ones share their nine tenths evenly.
                prop_assert!((probability - 0.9 / known as f64).abs() < ROUNDING);
            }
        }
    }

    #[test]
    fn newcomers_have_at_most_a_tenth_beside_a_known_one(prospects in prospects()) {
        let known = count_known(&prospects);
        let probabilities = probabilities(&prospects);
        let share = share_of_newcomers(&prospects, &probabilities);
        if known == prospects.len() {
            prop_assert_eq!(share, 0.0);
        } else if known > 0 {
            prop_assert!(share <= 0.1 + ROUNDING, "{}", share);
        } else {
            prop_assert!((share - 1.0).abs() < ROUNDING, "{}", share);
        }
    }

    #[test]
    fn a_newcomer_has_at_most_what_a_known_one_has_on_average(prospects in prospects()) {
        let known = count_known(&prospects);
        prop_assume!(known > 0 && known < prospects.len());
        let probabilities = probabilities(&prospects);
        let of_known = 1.0 - share_of_newcomers(&prospects, &probabilities);
        for (prospect, probability) in prospects.iter().zip(probabilities) {
            let average = of_known / known as f64;
            prop_assert!(!prospect.is_newcomer || probability <= average + ROUNDING);
        }
    }

    #[test]
    fn the_order_does_not_matter(
        (prospects, order) in prospects().prop_flat_map(|it| {
            let order: Vec<_> = (0..it.len()).collect();
            (Just(it), Just(order).prop_shuffle())
        }),
    ) {
        let other: Vec<_> = order.iter().map(|it| prospects[*it]).collect();
        let (before, after) = (probabilities(&prospects), probabilities(&other));
        for (place, index) in order.into_iter().enumerate() {
            // Exactly: rounding must not tell an order either.
            prop_assert_eq!(after[place], before[index]);
        }
    }

    #[test]
    fn different_ones_are_drawn_up_to_the_count(
        prospects in prospects(),
        count in 0..40_usize,
        seed in any::<[u8; 32]>(),
    ) {
        let drawn = draw(&prospects, count, &mut ChaCha8Rng::from_seed(seed));
        prop_assert_eq!(drawn.len(), count.min(prospects.len()));
        prop_assert!(drawn.iter().all(|it| *it < prospects.len()));
        let different: BTreeSet<_> = drawn.iter().collect();
        prop_assert_eq!(different.len(), drawn.len());
    }
}

/// Nine of both groups, of which two are cut off.
fn nine() -> Vec<Prospect> {
    let known = [1.0, 0.0, 0.05, 0.1, 0.2, 0.3].map(Prospect::known);
    let newcomers = [0.3, 0.2, 0.0].map(Prospect::newcomer);
    let mixed = [&newcomers[..1], &known[..], &newcomers[1..]];
    mixed.concat()
}

#[test]
fn frequencies_agree_with_probabilities() {
    const ROUNDS: u32 = 100_000;
    let prospects = &nine()[..8];
    let first = probabilities(prospects);
    let mut second = vec![0.0; prospects.len()];
    for (index, probability) in first.iter().enumerate() {
        // Of seven there is no cap: probabilities are computed anew.
        let mut left = prospects.to_vec();
        left.remove(index);
        let mut others = probabilities(&left);
        others.insert(index, 0.0);
        for (sum, other) in second.iter_mut().zip(others) {
            *sum += probability * other;
        }
    }
    let mut rng = ChaCha8Rng::from_seed([1; 32]);
    let mut counts = [vec![0_u32; prospects.len()], vec![0; prospects.len()]];
    for _ in 0..ROUNDS {
        for (count, index) in counts.iter_mut().zip(draw(prospects, 2, &mut rng)) {
            count[index] += 1;
        }
    }
    for (counts, expected) in counts.into_iter().zip([first, second]) {
        for (count, expected) in counts.into_iter().zip(expected) {
            let rounds = f64::from(ROUNDS);
            let deviation = (expected * (1.0 - expected) / rounds).sqrt();
            let frequency = f64::from(count) / rounds;
            assert!(
                (frequency - expected).abs() < 4.5 * deviation,
                "{frequency} instead of {expected}"
            );
            assert!(count > 0, "each is chosen");
        }
    }
}

#[test]
fn what_is_cut_off_goes_to_the_group_in_proportion() {
    let prospects = nine();
    let probabilities = probabilities(&prospects);
    let near = |one: f64, other: f64| (one - other).abs() < ROUNDING;
    // The newcomers' weights are 0.3, 0.2 and the floor; beside six known ones they would have
    // 0.55 / 6.55, which is less than a tenth.
    let share = 0.55 / 6.55;
    assert!(near(probabilities[0], share * 0.3 / 0.55));
    assert!(near(probabilities[8], share * 0.05 / 0.55));
    // The best known one is cut; then the next one too. The others have 0.05, 0.05, 0.1 and 0.2.
    assert!(near(probabilities[1], 0.25));
    assert!(near(probabilities[6], 0.25));
    assert!(near(probabilities[2], (0.5 - share) * 0.05 / 0.4));
    assert!(near(probabilities[5], (0.5 - share) * 0.2 / 0.4));
}

#[test]
fn three_known_ones_of_eight_leave_newcomers_a_whole_tenth() {
    let known = [1.0, 0.5, 0.0].map(Prospect::known);
    // By their weights they would have less.
    let newcomers = [0.0; 5].map(Prospect::newcomer);
    for (index, probability) in probabilities(&[&known[..], &newcomers].concat())
        .into_iter()
        .enumerate()
    {
        let expected = if index < 3 { 0.3 } else { 0.02 };
        assert!((probability - expected).abs() < ROUNDING, "{probability}");
    }
}

#[test]
fn without_a_limit_probabilities_are_as_lower_bounds() {
    let prospects = [0.9, 0.6, 0.3, f64::NAN].map(Prospect::known);
    let probabilities = probabilities(&prospects);
    for (probability, bound) in probabilities.into_iter().zip([0.9, 0.6, 0.3, FLOOR]) {
        assert!((probability - bound / (1.8 + FLOOR)).abs() < ROUNDING);
    }
}

#[test]
fn five_of_twenty_thousand_are_drawn_with_five_random_numbers() {
    let prospects: Vec<_> = (0..20_000_u32)
        .map(|it| match it % 3 {
            0 => Prospect::newcomer(0.5),
            _ => Prospect::known(f64::from(it) / 20_000.0),
        })
        .collect();
    let mut rng = ChaCha8Rng::from_seed([2; 32]);
    assert_eq!(draw(&prospects, 5, &mut rng).len(), 5);
    let mut other = ChaCha8Rng::from_seed([2; 32]);
    for _ in 0..5 {
        other.next_u64();
    }
    assert_eq!(rng.next_u64(), other.next_u64());
    let sum: f64 = probabilities(&prospects).iter().sum();
    assert!((sum - 1.0).abs() < 1e-9);
}
