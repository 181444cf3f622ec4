//! What is done already: outputs by line, on disk before they are printed.
//!
//! A file of JSON lines. The first says what is called; a line that was cut short by a crash is
//! the last, and is written once more.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use dlambda_client::Call;
use dlambda_proto::{ErrorKind, Report};
use serde::{Deserialize, Serialize};

use super::lines::Line;
use crate::output::open_private;

const SCHEMA: &str = "dlambda.map/1";

/// The first line.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    schema: String,
    /// A digest of function and arguments.
    call: String,
}

/// One line's output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) line: u64,
    /// SHA-256 of the line.
    pub(super) input: String,
    pub(super) provider: String,
    #[serde(with = "hex_bytes")]
    pub(super) output: Vec<u8>,
}

/// The file, locked for this process.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines.
    length: u64,
    done: HashMap<u64, Entry>,
}

impl Journal {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Usage`] if it is of another call or no such file, [`ErrorKind::Refused`] if
    /// another process writes it, [`ErrorKind::Local`].
    pub(super) fn open(path: &Path, call: &Call) -> Result<Self, Report> {
        let file = open_private(path)?;
        if file.try_lock().is_err() {
            let message = format!("{}: another process writes it", path.display());
            return Err(Report::new(ErrorKind::Refused, message));
        }
        let mut journal = Self {
            path: path.to_owned(),
            file,
            length: 0,
            done: HashMap::new(),
        };
        let header = Header {
            schema: SCHEMA.to_owned(),
            call: call.fingerprint(),
        };
        journal.read(&header)?;
        Ok(journal)
    }

    /// What this line brought, if it was called before.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Usage`] if another line was there.
    pub(super) fn find(&mut self, line: &Line) -> Result<Option<Entry>, Report> {
        match self.done.remove(&line.number) {
            Some(entry) if entry.input != line.digest() => {
                let message = format!(
                    "line {} is another than the one that {} has the output of",
                    line.number,
                    self.path.display()
                );
                Err(Report::new(ErrorKind::Usage, message)
                    .with_hint("give the same lines, or another file"))
            }
            found => Ok(found),
        }
    }

    /// Writes an output down; it is on disk when this returns. Blocks.
    pub(super) fn append(&mut self, entry: &Entry) -> Result<(), Report> {
        self.write(entry)
    }

    fn read(&mut self, header: &Header) -> Result<(), Report> {
        let mut reader = BufReader::new(&self.file);
        let (mut good, mut text) = (0, Vec::new());
        let mut found = None;
        let mut done = HashMap::new();
        loop {
            text.clear();
            let read = reader.read_until(b'\n', &mut text);
            let length = read.map_err(|error| self.local(&error))?;
            // What was cut short has no end of line.
            if length == 0 || text.last() != Some(&b'\n') {
                break;
            }
            if found.is_none() {
                let header = serde_json::from_slice::<Header>(&text);
                found = Some(header.map_err(|_| self.other())?);
            } else {
                let entry = serde_json::from_slice::<Entry>(&text);
                let entry = entry.map_err(|_| self.other())?;
                done.insert(entry.line, entry);
            }
            good += u64::try_from(length).unwrap_or(0);
        }
        let is_new = found.is_none();
        if is_new && good == 0 && !text.is_empty() && !text.starts_with(b"{") {
            return Err(self.other());
        }
        if found.is_some_and(|found| found != *header) {
            let message = format!("{} is of another call", self.path.display());
            return Err(Report::new(ErrorKind::Usage, message)
                .with_hint("give the same function and arguments, or another file"));
        }
        self.done = done;
        self.length = good;
        if is_new {
            self.write(header)?;
        }
        Ok(())
    }

    fn write(&mut self, what: &impl Serialize) -> Result<(), Report> {
        let mut text = serde_json::to_vec(what)
            .map_err(|error| Report::new(ErrorKind::Bug, error.to_string()))?;
        text.push(b'\n');
        // What is behind the last whole line was cut short: by a crash, or by a full disk.
        let cut = self.file.set_len(self.length);
        let cut = cut.and_then(|()| self.file.seek(SeekFrom::End(0)));
        let written = cut.and_then(|_| self.file.write_all(&text));
        let written = written.and_then(|()| self.file.sync_data());
        written.map_err(|error| self.local(&error))?;
        self.length += u64::try_from(text.len()).unwrap_or(0);
        Ok(())
    }

    fn local(&self, error: &std::io::Error) -> Report {
        Report::new(
            ErrorKind::Local,
            format!("{}: {error}", self.path.display()),
        )
    }

    fn other(&self) -> Report {
        let message = format!("{} is no file of `dlambda map`", self.path.display());
        Report::new(ErrorKind::Usage, message).with_hint("name a file that is not there yet")
    }
}

mod hex_bytes {
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        hex::decode(String::deserialize(from)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use dlambda_client::{FunctionName, Target};
    use dlambda_proto::Requirements;

    use super::*;

    fn call(function: &str) -> Call {
        let target = Target::Any(Requirements::default());
        Call::new(target, FunctionName::Alias(function.to_owned()))
    }

    fn line(number: u64, text: &str) -> Line {
        Line {
            number,
            bytes: text.as_bytes().to_vec(),
        }
    }

    fn entry(of: &Line) -> Entry {
        Entry {
            line: of.number,
            input: of.digest(),
            provider: "p".to_owned(),
            output: vec![0, 255, 10],
        }
    }

    #[test]
    fn what_is_written_is_found_after_a_crash_at_any_byte() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("done");
        let lines = [line(1, "a"), line(2, "b")];
        let mut journal = Journal::open(&path, &call("f")).unwrap();
        for line in &lines {
            journal.append(&entry(line)).unwrap();
        }
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        let ends: Vec<_> = (1..=whole.len())
            .filter(|it| whole[it - 1] == b'\n')
            .collect();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut journal = Journal::open(&path, &call("f")).unwrap();
            for (line, end) in lines.iter().zip(&ends[1..]) {
                let found = journal.find(line).unwrap();
                assert_eq!(found, (cut >= *end).then(|| entry(line)), "cut at {cut}");
                if found.is_none() {
                    journal.append(&entry(line)).unwrap();
                }
            }
            drop(journal);
            assert_eq!(std::fs::read(&path).unwrap(), whole, "cut at {cut}");
        }
    }

    #[test]
    fn a_line_after_one_that_a_full_disk_cut_short_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("done");
        let lines = [line(1, "a"), line(2, "b")];
        let mut journal = Journal::open(&path, &call("f")).unwrap();
        journal.append(&entry(&lines[0])).unwrap();
        journal.file.write_all(b"{\"line\":3,\"inp").unwrap();
        journal.append(&entry(&lines[1])).unwrap();
        drop(journal);
        let mut journal = Journal::open(&path, &call("f")).unwrap();
        for line in &lines {
            assert_eq!(journal.find(line).unwrap(), Some(entry(line)));
        }
    }

    #[test]
    fn other_calls_lines_and_files_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("done");
        let mut journal = Journal::open(&path, &call("f")).unwrap();
        journal.append(&entry(&line(1, "a"))).unwrap();
        let busy = Journal::open(&path, &call("f")).err().map(|it| it.kind);
        assert_eq!(busy, Some(ErrorKind::Refused));
        drop(journal);
        let kind = |function| {
            Journal::open(&path, &call(function))
                .err()
                .map(|it| it.kind)
        };
        assert_eq!(kind("g"), Some(ErrorKind::Usage));
        let mut journal = Journal::open(&path, &call("f")).unwrap();
        let found = journal.find(&line(1, "b"));
        assert_eq!(found.err().map(|it| it.kind), Some(ErrorKind::Usage));
        drop(journal);
        for text in ["something else", "something else\n", "{}\n"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(kind("f"), Some(ErrorKind::Usage), "{text}");
            assert_eq!(std::fs::read(&path).unwrap(), text.as_bytes(), "it is kept");
        }
    }
}
