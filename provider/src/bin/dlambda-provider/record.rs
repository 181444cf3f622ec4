//! `--dangerously-record-calls`: the provider's complete record, to
//! check that it holds nothing by which to recognise a caller.

use std::fs::{File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::{BASE64, HEXLOWER};
use dlambda_proto::{ErrorKind, Report};
use dlambda_provider::{Observer, SessionRecord};
use serde_json::{Value, json};

/// Appends a JSON object a session to a file that only its owner can read.
pub(crate) struct FileRecorder(Mutex<File>);

impl FileRecorder {
    pub(crate) fn create(path: &Path) -> Result<Self, Report> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .and_then(|file| {
                // It may have been there before, for everybody to read.
                file.set_permissions(Permissions::from_mode(0o600))?;
                Ok(file)
            })
            .map_err(|error| {
                Report::new(ErrorKind::Local, format!("{}: {error}", path.display()))
            })?;
        Ok(Self(Mutex::new(file)))
    }
}

impl Observer for FileRecorder {
    fn session_ended(&self, record: SessionRecord) {
        let line = format!("{}\n", to_json(&record));
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if file.write_all(line.as_bytes()).is_err() {
            tracing::error!("the record of a session could not be written");
        }
    }
}

fn to_json(record: &SessionRecord) -> Value {
    let hex = |bytes: &[u8; 32]| HEXLOWER.encode(bytes);
    let base64 = |bytes: &Vec<u8>| BASE64.encode(bytes);
    json!({
        "schema": "dlambda.record/1",
        "circuit": HEXLOWER.encode(&record.circuit.label),
        "opening": HEXLOWER.encode(&record.circuit.opening),
        "opened": seconds(record.opened),
        "ended": seconds(record.ended),
        "encapsulated_key": record.encapsulated_key.as_ref().map(hex),
        "reply_secret": record.reply_secret.as_ref().map(hex),
        "received": base64(&record.received),
        "sent": base64(&record.sent),
        "request": record.request.as_ref().map(base64),
        "reply": record.reply.as_ref().map(base64),
        "earlier": record.earlier.iter().map(|earlier| json!({
            "encapsulated_key": earlier.encapsulated_key.as_ref().map(hex),
            "reply_secret": earlier.reply_secret.as_ref().map(hex),
            "request": earlier.request.as_ref().map(base64),
            "reply": earlier.reply.as_ref().map(base64),
        })).collect::<Vec<_>>(),
    })
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
