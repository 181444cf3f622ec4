//! Reads the grey and colour images of Netpbm: P2, P3, P5 and P6.

pub struct Image {
    pub width: usize,
    pub height: usize,
    /// 1 is grey, 3 is red, green and blue.
    pub channels: usize,
    /// What a sample is at most; at least 1.
    pub max: u16,
    /// Row by row, the channels of a pixel together.
    pub samples: Vec<u16>,
}

/// The first image of `bytes`, or nothing if there is none of at most
/// `most_pixels` pixels.
pub fn read(bytes: &[u8], most_pixels: usize) -> Option<Image> {
    let (channels, plain) = match bytes.get(..2)? {
        b"P2" => (1, true),
        b"P3" => (3, true),
        b"P5" => (1, false),
        b"P6" => (3, false),
        _ => return None,
    };
    let mut rest = &bytes[2..];
    let width = number(&mut rest)?.into();
    let height = number(&mut rest)?.into();
    let max = number(&mut rest)?;
    if width == 0 || height == 0 || max == 0 || height > most_pixels / width {
        return None;
    }
    let count = width * height * channels;
    let samples: Vec<u16> = if plain {
        (0..count)
            .map(|_| number(&mut rest))
            .collect::<Option<_>>()?
    } else {
        // One character of white space is between the header and the samples.
        let size = if max > 255 { 2 } else { 1 };
        let raster = rest.get(1..1 + count * size)?.chunks_exact(size);
        let big_endian = |sample: &[u8]| {
            sample
                .iter()
                .fold(0, |sum, &byte| sum << 8 | u16::from(byte))
        };
        raster.map(big_endian).collect()
    };
    samples
        .iter()
        .all(|&sample| sample <= max)
        .then_some(Image {
            width,
            height,
            channels,
            max,
            samples,
        })
}

/// The number that `rest` begins with, behind white space and comments.
fn number(rest: &mut &[u8]) -> Option<u16> {
    loop {
        match rest.first()? {
            b'#' => *rest = &rest[rest.iter().position(|&byte| byte == b'\n')?..],
            byte if byte.is_ascii_whitespace() => *rest = &rest[1..],
            _ => break,
        }
    }
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, behind) = rest.split_at(digits);
    *rest = behind;
    std::str::from_utf8(number).ok()?.parse().ok()
}
