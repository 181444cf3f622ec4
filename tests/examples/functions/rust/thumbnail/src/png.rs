//! The PNG images most programs write: 8 bits a sample, not interlaced. The crate `png` reads
//! all others too, and would be half of the function.

use miniz_oxide::{deflate, inflate};

use crate::Image;

pub const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 * (crc & 1))
        })
    })
}

/// What Paeth's filter predicts from the samples to the left, above, and above to the left.
fn paeth(left: u8, above: u8, corner: u8) -> u8 {
    let estimate = i16::from(left) + i16::from(above) - i16::from(corner);
    let distance = |sample: u8| estimate.abs_diff(sample.into());
    if distance(left) <= distance(above) && distance(left) <= distance(corner) {
        left
    } else if distance(above) <= distance(corner) {
        above
    } else {
        corner
    }
}

/// The sum of what the filter `kind` predicts; nothing if there is no such filter.
fn predict(kind: u8, left: u8, above: u8, corner: u8) -> Option<u8> {
    Some(match kind {
        0 => 0,
        1 => left,
        2 => above,
        3 => ((u16::from(left) + u16::from(above)) / 2) as u8,
        4 => paeth(left, above, corner),
        _ => return None,
    })
}

/// The samples of rows that each begin with the kind of their filter.
fn unfilter(rows: &[u8], stride: usize, channels: usize) -> Option<Vec<u8>> {
    let mut above = vec![0; stride];
    let mut samples = Vec::with_capacity(rows.len());
    for row in rows.chunks_exact(stride + 1) {
        let (kind, mut row) = (row[0], row[1..].to_vec());
        for at in 0..stride {
            let before = at.checked_sub(channels);
            let (left, corner) = before.map_or((0, 0), |before| (row[before], above[before]));
            row[at] = row[at].wrapping_add(predict(kind, left, above[at], corner)?);
        }
        samples.extend(&row);
        above = row;
    }
    Some(samples)
}

/// The colours of a palette, with alpha if it has any.
fn colours(samples: &[u8], palette: &[u8], alphas: &[u8]) -> Option<Vec<u8>> {
    let mut colours = Vec::with_capacity(samples.len() * 4);
    for &sample in samples {
        let index = usize::from(sample);
        colours.extend(palette.get(3 * index..3 * index + 3)?);
        if !alphas.is_empty() {
            colours.push(alphas.get(index).copied().unwrap_or(255));
        }
    }
    Some(colours)
}

pub fn read(bytes: &[u8], most_pixels: usize) -> Result<Image, &'static str> {
    let cut = "the image is cut";
    let mut rest = bytes.strip_prefix(SIGNATURE).ok_or("not a PNG")?;
    let (mut header, mut palette, mut alphas, mut packed) = (&[][..], &[][..], &[][..], vec![]);
    loop {
        let (length, behind) = rest.split_first_chunk().ok_or(cut)?;
        let length = u32::from_be_bytes(*length) as usize;
        // The checksum covers the chunk's kind and its data.
        let checked = length
            .checked_add(4)
            .and_then(|end| behind.get(..end))
            .ok_or(cut)?;
        let (sum, behind) = behind[checked.len()..].split_first_chunk().ok_or(cut)?;
        if crc(checked) != u32::from_be_bytes(*sum) {
            return Err("the image is damaged");
        }
        match &checked[..4] {
            b"IHDR" => header = &checked[4..],
            b"PLTE" => palette = &checked[4..],
            b"tRNS" => alphas = &checked[4..],
            b"IDAT" => packed.extend(&checked[4..]),
            b"IEND" => break,
            _ => {}
        }
        rest = behind;
    }
    let &[a, b, c, d, e, f, g, h, 8, kind, 0, 0, 0] = header else {
        return Err("only PNG of 8 bits a sample, not interlaced");
    };
    let width = u32::from_be_bytes([a, b, c, d]) as usize;
    let height = u32::from_be_bytes([e, f, g, h]) as usize;
    let stored = match kind {
        0 | 3 => 1,
        2 => 3,
        4 => 2,
        6 => 4,
        _ => return Err("no such kind of PNG"),
    };
    if width == 0 || height == 0 || height > most_pixels / width {
        return Err("the image is empty or too large");
    }
    let stride = width * stored;
    let size = (stride + 1) * height;
    let rows = inflate::decompress_to_vec_zlib_with_limit(&packed, size)
        .ok()
        .filter(|rows| rows.len() == size)
        .ok_or("the image is damaged")?;
    let mut samples = unfilter(&rows, stride, stored).ok_or("no such filter")?;
    if kind == 3 {
        samples = colours(&samples, palette, alphas).ok_or("no such colour in the palette")?;
    }
    let channels = samples.len() / (width * height);
    Ok(Image {
        width,
        height,
        channels,
        samples,
    })
}

pub fn write(image: &Image) -> Vec<u8> {
    let stride = image.width * image.channels;
    let mut rows = Vec::with_capacity((stride + 1) * image.height);
    let mut above = &vec![0; stride][..];
    for row in image.samples.chunks_exact(stride) {
        rows.push(4);
        for at in 0..stride {
            let before = at.checked_sub(image.channels);
            let (left, corner) = before.map_or((0, 0), |before| (row[before], above[before]));
            rows.push(row[at].wrapping_sub(paeth(left, above[at], corner)));
        }
        above = row;
    }
    let mut header = [image.width as u32, image.height as u32]
        .map(u32::to_be_bytes)
        .concat();
    header.extend([8, [0, 4, 2, 6][image.channels - 1], 0, 0, 0]);
    let mut bytes = SIGNATURE.to_vec();
    let mut chunk = |kind: &[u8], data: &[u8]| {
        let checked = [kind, data].concat();
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend(&checked);
        bytes.extend(crc(&checked).to_be_bytes());
    };
    chunk(b"IHDR", &header);
    chunk(b"IDAT", &deflate::compress_to_vec_zlib(&rows, 6));
    chunk(b"IEND", &[]);
    bytes
}
