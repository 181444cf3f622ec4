//! The helper as a whole: starts in one role, and ends with its input.

use std::path::Path;
use std::time::{Duration, SystemTime};

use dlambda_nym_link::{Command, Event, Role, Settings, VERSION};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::caller::Entry;
use crate::error::HelperError;
use crate::link::{self, Events};
use crate::network::Network;
use crate::{caller, provider};

/// How long the last events may take to be read.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long the SDK's tasks have to close their files and sockets.
const FAREWELL: Duration = Duration::from_millis(150);

/// Obeys the commands on `input` until it ends, and reports on `output`.
///
/// `start_deadline` is the time in which the network must be reached.
pub(crate) async fn run<R, W>(
    input: R,
    output: W,
    start_deadline: Duration,
) -> Result<(), HelperError>
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let (commands, mut reading) = link::read(input);
    let (events, mut writing) = link::write(output);
    let result = tokio::select! {
        result = obey(commands, events.clone(), start_deadline) => result,
        read = &mut reading => read.unwrap_or(Ok(())).map_err(HelperError::from),
        wrote = &mut writing => wrote.unwrap_or(Ok(())).map_err(HelperError::from),
    };
    if let Err(error) = &result {
        let why = error.to_string();
        let _told = events.send_within(Event::Failed { why }, LAST_WORDS).await;
    }
    drop(events);
    if !writing.is_finished() {
        let _written = timeout(LAST_WORDS, writing).await;
    }
    tokio::time::sleep(FAREWELL).await;
    result
}

async fn obey(
    mut commands: mpsc::Receiver<Command>,
    events: Events,
    start_deadline: Duration,
) -> Result<(), HelperError> {
    let settings = match commands.recv().await {
        Some(Command::Start(settings)) => settings,
        Some(_) => return Err(HelperError::NotStarted),
        // The input has ended; its reader says how.
        None => return std::future::pending().await,
    };
    let Settings { version, .. } = settings;
    if version != VERSION {
        return Err(HelperError::Version { theirs: version });
    }
    let network = Network::new(&settings)?;
    match settings.role {
        Role::Caller { pool, entry } => {
            let entry = Entry::open(entry.as_deref().map(Path::new), SystemTime::now());
            caller::run(network, entry, pool, commands, events, start_deadline).await
        }
        Role::Provider { directory } => {
            let directory = Path::new(&directory);
            provider::run(network, directory, commands, events, start_deadline).await
        }
    }
}
