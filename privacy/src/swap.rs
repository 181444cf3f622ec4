//! Swap areas that keep what they hold in the clear on a disk.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};

/// Bytes of `/proc/swaps` that are read: Linux has at most 32 areas, and a line is rarely longer
/// than 200 bytes.
const MAX_SWAPS: u64 = 64 << 10;

/// Bytes that are read of a file of `/sys`, which has one short line.
const MAX_ATTRIBUTE: u64 = 4096;

/// Device-mapper devices on top of each other that are looked through (LVM on dm-crypt is two).
const MAX_DEPTH: usize = 8;

/// The active swap areas of this machine whose contents a stolen disk would show: not zram (which
/// is memory), and neither on a dm-crypt device nor in a file on one. By path, as the kernel names
/// them. What cannot be examined counts as unencrypted. Empty where there is no `/proc/swaps`.
///
/// Blocks on files of the kernel.
///
/// # Errors
///
/// If `/proc/swaps` is there and cannot be read.
pub fn unencrypted_areas() -> io::Result<Vec<String>> {
    let swaps = match read_bounded(Path::new("/proc/swaps"), MAX_SWAPS) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        swaps => swaps?,
    };
    let sys = Path::new("/sys");
    let exposed = parse(&swaps).filter(|area| !is_protected(area, sys));
    Ok(exposed.map(|area| area.path).collect())
}

/// A line of `/proc/swaps`.
#[derive(Debug, PartialEq, Eq)]
struct Area {
    path: String,
    is_file: bool,
}

/// The areas in the text of `/proc/swaps`, whose first line is a heading.
fn parse(swaps: &str) -> impl Iterator<Item = Area> {
    swaps.lines().skip(1).filter_map(|line| {
        let mut columns = line.split_ascii_whitespace();
        let (path, kind) = (columns.next()?, columns.find(|it| *it != "(deleted)")?);
        Some(Area {
            path: unescape(path),
            is_file: kind == "file",
        })
    })
}

/// The kernel writes white space and backslashes in names as three octal digits.
fn unescape(name: &str) -> String {
    let escapes = [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ];
    let unescaped = escapes.into_iter();
    unescaped.fold(name.to_owned(), |name, (escape, character)| {
        name.replace(escape, character)
    })
}

/// Whether nothing of the area reaches a disk in the clear, by what `sys` says of its device.
fn is_protected(area: &Area, sys: &Path) -> bool {
    device(area, sys).is_some_and(|device| is_protected_device(&device, MAX_DEPTH))
}

/// The device's directory in `/sys`.
fn device(area: &Area, sys: &Path) -> Option<PathBuf> {
    if !area.is_file {
        let path = Path::new(&area.path);
        // `/dev/mapper` has links to the nodes that `/sys` knows.
        let node = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        return Some(sys.join("class/block").join(node.file_name()?));
    }
    let on = std::fs::metadata(&area.path).ok()?.dev();
    let number = format!("{}:{}", major(on), minor(on));
    Some(sys.join("dev/block").join(number))
}

fn is_protected_device(device: &Path, depth: usize) -> bool {
    // Only zram has it: the disk to which it may write, or `none`.
    if let Ok(backing) = read_bounded(&device.join("backing_dev"), MAX_ATTRIBUTE) {
        return backing.trim() == "none";
    }
    let uuid = read_bounded(&device.join("dm/uuid"), MAX_ATTRIBUTE).unwrap_or_default();
    if uuid.starts_with("CRYPT-") {
        return true;
    }
    if depth == 0 {
        return false;
    }
    let Ok(below) = std::fs::read_dir(device.join("slaves")) else {
        return false;
    };
    let mut below = below.peekable();
    below.peek().is_some()
        && below.all(|entry| entry.is_ok_and(|it| is_protected_device(&it.path(), depth - 1)))
}

fn read_bounded(path: &Path, most: u64) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(most).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(path: &str) -> Area {
        Area {
            path: path.to_owned(),
            is_file: false,
        }
    }

    fn write(sys: &Path, file: &str, text: &str) {
        let path = sys.join("class/block").join(file);
        std::fs::create_dir_all(path.parent().expect("below")).expect("made");
        std::fs::write(path, text).expect("written");
    }

    #[test]
    fn the_kernels_table_is_read() {
        let table = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n\
            /dev/dm-1                               partition\t8388604\t\t0\t\t-2\n\
            /swap\\040here                          file\t\t1048572\t\t0\t\t-3\n\
            /gone\\040(deleted)                      file\t\t1\t\t0\t\t-4\n\
            odd\n\n";
        let areas: Vec<_> = parse(table).collect();
        let file = |path: &str| Area {
            path: path.to_owned(),
            is_file: true,
        };
        let expected = [
            area("/dev/dm-1"),
            file("/swap here"),
            file("/gone (deleted)"),
        ];
        assert_eq!(areas, expected);
        assert_eq!(parse("Filename\tType\n").count(), 0);
        assert_eq!(parse("").count(), 0);
    }

    #[test]
    fn only_zram_without_a_disk_and_dm_crypt_are_protected() {
        let sys = tempfile::tempdir().expect("a directory");
        let sys = sys.path();
        write(sys, "test-zram0/backing_dev", "none\n");
        write(sys, "test-zram1/backing_dev", "/dev/sda3\n");
        write(sys, "test-crypt/dm/uuid", "CRYPT-PLAIN-swap\n");
        write(sys, "test-luks/dm/uuid", "CRYPT-LUKS2-00-name\n");
        write(sys, "test-sda2/size", "1\n");
        write(sys, "test-lvm/dm/uuid", "LVM-a\n");
        write(sys, "test-lvm/slaves/luks/dm/uuid", "CRYPT-LUKS2-00-name\n");
        write(sys, "test-mixed/dm/uuid", "LVM-b\n");
        write(sys, "test-mixed/slaves/luks/dm/uuid", "CRYPT-LUKS2-00\n");
        write(sys, "test-mixed/slaves/sdb1/size", "1\n");
        let is_protected = |name: &str| is_protected(&area(&format!("/dev/{name}")), sys);
        for name in ["test-zram0", "test-crypt", "test-luks", "test-lvm"] {
            assert!(is_protected(name), "{name}");
        }
        for name in ["test-zram1", "test-sda2", "test-mixed", "test-unknown"] {
            assert!(!is_protected(name), "{name}");
        }
    }

    #[test]
    fn a_file_is_as_protected_as_the_device_that_it_is_on() {
        let sys = tempfile::tempdir().expect("a directory");
        let swap = sys.path().join("swap");
        std::fs::write(&swap, "").expect("written");
        let area = Area {
            path: swap.to_str().expect("text").to_owned(),
            is_file: true,
        };
        assert!(!is_protected(&area, sys.path()));
        let device = device(&area, sys.path()).expect("known");
        std::fs::create_dir_all(device.join("dm")).expect("made");
        std::fs::write(device.join("dm/uuid"), "CRYPT-LUKS2-00").expect("written");
        assert!(is_protected(&area, sys.path()));
        std::fs::remove_file(&swap).expect("removed");
        assert!(!is_protected(&area, sys.path()));
    }
}
