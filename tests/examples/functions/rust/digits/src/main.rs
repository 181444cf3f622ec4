//! digits: reads an 8x8 grey image (PGM, P2 or P5) of a handwritten digit on standard input and
//! prints which it is and how probable, as `7 0.9931`. White is ink.
//!
//! A network of 64 inputs, 32 hidden units and 10 outputs, trained by train.py.

use std::io::{self, Read, Write};
use std::process::ExitCode;

const SIDE: usize = 8;
const INPUTS: usize = SIDE * SIDE;
const HIDDEN: usize = 32;
const OUTPUTS: usize = 10;

/// Little-endian f32: weights and biases of the hidden layer, then of the output layer.
static WEIGHTS: &[u8; 4 * ((INPUTS + 1) * HIDDEN + (HIDDEN + 1) * OUTPUTS)] =
    include_bytes!("../weights.bin");

/// The pixels, from 0 to 1.
fn pixels(bytes: &[u8]) -> Option<Vec<f32>> {
    let image = pnm::read(bytes, INPUTS)?;
    let fits = (image.width, image.height, image.channels) == (SIDE, SIDE, 1);
    let scale = |&sample: &u16| f32::from(sample) / f32::from(image.max);
    fits.then(|| image.samples.iter().map(scale).collect())
}

/// `input` times the matrix that begins `weights`, plus the biases behind it.
fn layer<'a>(input: &[f32], weights: &'a [f32], outputs: usize) -> (Vec<f32>, &'a [f32]) {
    let (matrix, rest) = weights.split_at(input.len() * outputs);
    let (biases, rest) = rest.split_at(outputs);
    let mut sums = biases.to_vec();
    for (value, row) in input.iter().zip(matrix.chunks_exact(outputs)) {
        for (sum, weight) in sums.iter_mut().zip(row) {
            *sum += value * weight;
        }
    }
    (sums, rest)
}

fn classify(input: &[f32]) -> (usize, f32) {
    let number = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("four bytes"));
    let weights: Vec<f32> = WEIGHTS.chunks_exact(4).map(number).collect();
    let (mut hidden, rest) = layer(input, &weights, HIDDEN);
    hidden.iter_mut().for_each(|value| *value = value.max(0.0));
    let (scores, _) = layer(&hidden, rest, OUTPUTS);
    let best = (1..OUTPUTS).fold(0, |best, digit| {
        if scores[digit] > scores[best] {
            digit
        } else {
            best
        }
    });
    // Softmax. The greatest score is taken from all, so that no power overflows.
    let total: f32 = scores
        .iter()
        .map(|score| (score - scores[best]).exp())
        .sum();
    (best, 1.0 / total)
}

fn run() -> Result<(), String> {
    let mut image = Vec::new();
    // More than any 8x8 image needs, comments included.
    io::stdin()
        .take(64 * 1024)
        .read_to_end(&mut image)
        .map_err(|error| error.to_string())?;
    let input = pixels(&image).ok_or("not a PGM image (P2 or P5) of 8x8")?;
    let (digit, probability) = classify(&input);
    writeln!(io::stdout(), "{digit} {probability:.4}").map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("digits: {error}");
            ExitCode::FAILURE
        }
    }
}
