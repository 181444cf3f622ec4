//! Finds solutions: Wagner's algorithm for the generalised birthday problem.
//!
//! A solution is 32 of 2^17 hashes whose exclusive-or is zero. Five rounds pair rows that agree in
//! the next 16 bits; each round has about as many rows as the one before. A row remembers the two
//! that it is made of, so that its indices are only gathered for the few that remain.

use blake2b_simd::Params;

/// Hashes to choose from.
const LEAVES: u32 = 1 << 17;
/// Leaves in one hash of 60 bytes.
const IN_ONE: u32 = 5;
/// Most rows of a round. There are 2^17 on average; a stranger's challenge takes no more memory.
const MAX_ROWS: usize = 1 << 18;
/// Rounds before the last one.
const ROUNDS: usize = 4;
/// Bits of an index in a solution.
const INDEX_BITS: usize = 17;

/// What is left of 96 bits, 16 at a time, the first first.
type Row = [u16; 6];
/// Places of two rows in the round before.
type Pair = (u32, u32);

/// All solutions for a challenge and a nonce: two on average.
pub(super) fn solve(challenge: &[u8; 32], nonce: &[u8; 16]) -> Vec<[u8; 68]> {
    let mut rows = leaves(challenge, nonce);
    let mut rounds: Vec<Vec<Pair>> = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        let pairs = collisions(&rows, round, |_, _| true);
        rows = pairs
            .iter()
            .map(|(one, two)| combine(&rows, *one, *two))
            .collect();
        rounds.push(pairs);
    }
    let is_zero = |one: &Row, two: &Row| one[5] == two[5];
    let last = collisions(&rows, ROUNDS, is_zero);
    let mut solutions: Vec<_> = last
        .into_iter()
        .filter_map(|pair| indices(&rounds, pair))
        .map(|indices| pack(&indices))
        .collect();
    // One set of indices is found once for each way to pair it.
    solutions.sort_unstable();
    solutions.dedup();
    solutions
}

fn leaves(challenge: &[u8; 32], nonce: &[u8; 16]) -> Vec<Row> {
    let mut personal = *b"ZcashPoW\0\0\0\0\0\0\0\0";
    personal[8..12].copy_from_slice(&super::N.to_le_bytes());
    personal[12..].copy_from_slice(&super::K.to_le_bytes());
    let mut params = Params::new();
    params.hash_length(60).personal(&personal);
    let mut state = params.to_state();
    state.update(challenge).update(nonce);
    let hashes = (0..LEAVES.div_ceil(IN_ONE)).map(|number| {
        let mut state = state.clone();
        state.update(&number.to_le_bytes());
        state.finalize()
    });
    let mut rows = Vec::with_capacity(LEAVES as usize + IN_ONE as usize);
    for hash in hashes {
        for leaf in hash.as_bytes().chunks_exact(12) {
            let mut row = [0; 6];
            for (word, bytes) in row.iter_mut().zip(leaf.chunks_exact(2)) {
                *word = u16::from_be_bytes([bytes[0], bytes[1]]);
            }
            rows.push(row);
        }
    }
    rows.truncate(LEAVES as usize);
    rows
}

/// Pairs of rows that agree in the 16 bits of this round, and otherwise as `also` says.
fn collisions(rows: &[Row], round: usize, also: impl Fn(&Row, &Row) -> bool) -> Vec<Pair> {
    let sorted = by_word(rows, round);
    let mut pairs = Vec::with_capacity(rows.len());
    for group in sorted.chunk_by(|one, two| word(rows, *one, round) == word(rows, *two, round)) {
        for (at, one) in group.iter().enumerate() {
            for two in &group[at + 1..] {
                if pairs.len() == MAX_ROWS {
                    return pairs;
                }
                let (first, second) = (&rows[*one as usize], &rows[*two as usize]);
                // Two that are equal are made of the same leaves.
                if also(first, second) && (round == ROUNDS || first != second) {
                    pairs.push((*one, *two));
                }
            }
        }
    }
    pairs
}

/// Places of the rows in the order of one of their words: a counting sort.
fn by_word(rows: &[Row], round: usize) -> Vec<u32> {
    let mut starts = vec![0_u32; (1 << 16) + 1];
    for row in rows {
        starts[usize::from(row[round]) + 1] += 1;
    }
    for at in 1..starts.len() {
        starts[at] += starts[at - 1];
    }
    let mut sorted = vec![0; rows.len()];
    for (place, row) in (0..).zip(rows) {
        let next = &mut starts[usize::from(row[round])];
        sorted[*next as usize] = place;
        *next += 1;
    }
    sorted
}

fn word(rows: &[Row], place: u32, round: usize) -> u16 {
    rows[place as usize][round]
}

fn combine(rows: &[Row], one: u32, two: u32) -> Row {
    let (one, two) = (&rows[one as usize], &rows[two as usize]);
    std::array::from_fn(|at| one[at] ^ two[at])
}

/// The leaves below a pair of the last round, in the one order that is valid; none if one is there
/// twice.
fn indices(rounds: &[Vec<Pair>], pair: Pair) -> Option<Vec<u32>> {
    let indices = below(rounds, pair);
    let mut sorted = indices.clone();
    sorted.sort_unstable();
    sorted.dedup();
    (sorted.len() == indices.len()).then_some(indices)
}

/// In each pair, the one with the smaller first index comes first.
fn below(rounds: &[Vec<Pair>], (one, two): Pair) -> Vec<u32> {
    let [side_one, side_two] = [one, two].map(|place| match rounds.split_last() {
        None => vec![place],
        Some((pairs, earlier)) => below(earlier, pairs[place as usize]),
    });
    if side_one[0] < side_two[0] {
        [side_one, side_two].concat()
    } else {
        [side_two, side_one].concat()
    }
}

/// 32 indices of 17 bits, the most significant bit first.
fn pack(indices: &[u32]) -> [u8; 68] {
    let mut packed = [0; 68];
    let bits = indices
        .iter()
        .flat_map(|index| (0..INDEX_BITS).rev().map(move |bit| index >> bit & 1));
    for (at, bit) in bits.enumerate() {
        if bit == 1 {
            packed[at / 8] |= 0x80 >> (at % 8);
        }
    }
    packed
}
