//! thumbnail WIDTH: reads an image on standard input and writes it with that width and its own
//! proportions: PNG (8 bits a sample, not interlaced) as PNG, Netpbm (P2, P3, P5, P6) as P5 or P6.
//!
//! Every new pixel is the mean, in linear light, of the area of the old image it covers. The
//! arithmetic is floating point on purpose: two providers must agree on every bit of it.

mod png;

use std::io::{self, Read, Write};
use std::process::ExitCode;

const MOST_PIXELS: usize = 1 << 24;
const MOST_WIDTH: usize = 4096;

struct Image {
    width: usize,
    height: usize,
    /// Grey, grey and alpha, colour, colour and alpha.
    channels: usize,
    samples: Vec<u8>,
}

fn read_pnm(bytes: &[u8]) -> Result<Image, String> {
    let image = pnm::read(bytes, MOST_PIXELS).ok_or("not an image, or too large")?;
    let max = u32::from(image.max);
    let scale = |&sample: &u16| ((u32::from(sample) * 255 + max / 2) / max) as u8;
    Ok(Image {
        width: image.width,
        height: image.height,
        channels: image.channels,
        samples: image.samples.iter().map(scale).collect(),
    })
}

fn write_pnm(image: &Image) -> Vec<u8> {
    let kind = if image.channels == 1 { 5 } else { 6 };
    let header = format!("P{kind}\n{} {}\n255\n", image.width, image.height);
    [header.as_bytes(), &image.samples].concat()
}

/// For each of `new` pixels, the first of `old` pixels that it covers, and how much of it each
/// one from there on fills.
fn coverage(old: usize, new: usize) -> Vec<(usize, Vec<f32>)> {
    let scale = old as f64 / new as f64;
    let cover = |pixel: usize| {
        let (start, end) = (pixel as f64 * scale, (pixel + 1) as f64 * scale);
        let (first, last) = (start as usize, (end.ceil() as usize).min(old));
        let part = |at: usize| (end.min((at + 1) as f64) - start.max(at as f64)) / scale;
        (first, (first..last).map(|at| part(at) as f32).collect())
    };
    (0..new).map(cover).collect()
}

/// sRGB to linear light and back.
fn to_linear(value: f32) -> f32 {
    if value <= 0.04045 {
        value / 12.92
    } else {
        ((value + 0.055) / 1.055).powf(2.4)
    }
}

fn from_linear(value: f32) -> f32 {
    if value <= 0.003_130_8 {
        value * 12.92
    } else {
        1.055 * value.powf(1.0 / 2.4) - 0.055
    }
}

fn has_alpha(channels: usize) -> bool {
    matches!(channels, 2 | 4)
}

/// A row in linear light, each colour times its pixel's alpha, so that what cannot be seen has
/// no colour to give to its neighbours.
fn linear_row(row: &[u8], channels: usize, table: &[f32; 256]) -> Vec<f32> {
    let alpha = has_alpha(channels);
    let mut linear = Vec::with_capacity(row.len());
    for pixel in row.chunks_exact(channels) {
        let (colours, rest) = pixel.split_at(channels - usize::from(alpha));
        let opacity = rest.first().map_or(1.0, |&alpha| f32::from(alpha) / 255.0);
        linear.extend(
            colours
                .iter()
                .map(|&colour| table[usize::from(colour)] * opacity),
        );
        linear.extend(rest.iter().map(|_| opacity));
    }
    linear
}

fn samples_of(linear: &[f32], channels: usize) -> Vec<u8> {
    let alpha = has_alpha(channels);
    let mut samples = Vec::with_capacity(linear.len());
    for pixel in linear.chunks_exact(channels) {
        let (colours, rest) = pixel.split_at(channels - usize::from(alpha));
        let opacity = rest.first().copied().unwrap_or(1.0);
        // Of a pixel that cannot be seen, 0/0 is not a number, and as a byte 0.
        let byte = |value: f32| (value * 255.0 + 0.5) as u8;
        samples.extend(
            colours
                .iter()
                .map(|&colour| byte(from_linear(colour / opacity))),
        );
        samples.extend(rest.iter().map(|&alpha| byte(alpha)));
    }
    samples
}

fn resize(image: &Image, width: usize) -> Result<Image, String> {
    let height = (image.height * width + image.width / 2) / image.width;
    let height = height.max(1);
    if width * height > MOST_PIXELS {
        return Err("the thumbnail would be too large".into());
    }
    let channels = image.channels;
    let table = std::array::from_fn(|value| to_linear(value as f32 / 255.0));
    let columns = coverage(image.width, width);
    let narrow = |y: usize| {
        let stride = image.width * channels;
        let row = linear_row(&image.samples[y * stride..][..stride], channels, &table);
        let mut sums = vec![0.0; width * channels];
        for (sum, (first, parts)) in sums.chunks_exact_mut(channels).zip(&columns) {
            for (part, pixel) in parts
                .iter()
                .zip(row[first * channels..].chunks_exact(channels))
            {
                add(sum, pixel, *part);
            }
        }
        sums
    };
    let mut samples = Vec::with_capacity(width * height * channels);
    // Neighbours may share a row, so the last one is kept.
    let (mut kept, mut row) = (usize::MAX, Vec::new());
    for (first, parts) in coverage(image.height, height) {
        let mut sums = vec![0.0; width * channels];
        for (y, part) in (first..).zip(parts) {
            if y != kept {
                (kept, row) = (y, narrow(y));
            }
            add(&mut sums, &row, part);
        }
        samples.extend(samples_of(&sums, channels));
    }
    Ok(Image {
        width,
        height,
        channels,
        samples,
    })
}

fn add(sums: &mut [f32], values: &[f32], part: f32) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += value * part;
    }
}

fn run(width: usize) -> Result<(), String> {
    let mut bytes = Vec::new();
    io::stdin()
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    let output = if bytes.starts_with(png::SIGNATURE) {
        png::write(&resize(&png::read(&bytes, MOST_PIXELS)?, width)?)
    } else {
        write_pnm(&resize(&read_pnm(&bytes)?, width)?)
    };
    io::stdout()
        .write_all(&output)
        .map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let width = match arguments.first().map(|width| width.parse()) {
        Some(Ok(width @ 1..=MOST_WIDTH)) if arguments.len() == 1 => width,
        _ => {
            eprintln!("usage: thumbnail WIDTH, from 1 to {MOST_WIDTH}, < IMAGE");
            return ExitCode::from(2);
        }
    };
    match run(width) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("thumbnail: {error}");
            ExitCode::FAILURE
        }
    }
}
