//! The same on RocksDB: a process killed between any two writes, and its write-ahead log cut off
//! at any byte.
//!
//! A copy of the directory, made while the writer stands still, is what a killed process leaves:
//! the kernel has all that was written. A log cut off at a byte is what a power cut leaves on a
//! file system that extends a file only after its data is written, whatever had been synced: so
//! what was synced before that byte must be there, and what comes after may not be half there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use node::storage::log_writer::LogWriter;
use node::storage::rocks::{RocksEngine, RocksOptions};
use node::storage::{
    Durability, Engine, KeyRange, KeyValue, ScanLimit, Space, StorageError, WriteBatch,
};

use super::workload::{Fact, Journal};
use super::{Journals, Report, Workload, on_one_thread};

/// Processes killed in one workload.
const KILLS: u64 = 6;

/// RocksDB, watched: it counts its writes, and at some of them a copy of its directory is made.
struct Watched {
    engine: RocksEngine,
    directory: PathBuf,
    images: PathBuf,
    writes: Arc<AtomicU64>,
    copy_at: Vec<u64>,
    journals: Journals,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Copies, by the count of writes that were made.
    copies: Vec<(u64, Vec<Vec<Fact>>)>,
    /// How long the log was after that many writes.
    log_lengths: Vec<u64>,
    failed: Option<io::Error>,
}

impl Watched {
    /// On the writer's own thread: no write is under way and none is answered.
    fn look(&self, writes: u64) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let length = newest_log(&self.directory).and_then(|log| Ok(fs::metadata(log)?.len()));
        match length {
            Ok(length) => seen.log_lengths.push(length),
            Err(error) => seen.failed = Some(error),
        }
        if self.copy_at.contains(&writes) {
            // BEFORE the copy: what is acknowledged in between is not in it.
            let facts = self.journals.iter().map(Journal::copy).collect();
            let copied = copy_directory(&self.directory, &self.images.join(writes.to_string()));
            match copied {
                Ok(()) => seen.copies.push((writes, facts)),
                Err(error) => seen.failed = Some(error),
            }
        }
    }
}

impl Engine for Watched {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<bytes::Bytes>, StorageError> {
        self.engine.get(space, key)
    }

    fn scan(
        &self,
        space: Space,
        range: &KeyRange,
        limit: ScanLimit,
    ) -> Result<Vec<KeyValue>, StorageError> {
        self.engine.scan(space, range, limit)
    }

    fn last_before(
        &self,
        space: Space,
        range: &KeyRange,
    ) -> Result<Option<KeyValue>, StorageError> {
        self.engine.last_before(space, range)
    }

    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<(), StorageError> {
        self.engine.write(batch, durability)?;
        let writes = self.writes.fetch_add(1, Ordering::SeqCst) + 1;
        self.look(writes);
        Ok(())
    }

    fn bytes_used(&self) -> Result<u64, StorageError> {
        self.engine.bytes_used()
    }

    fn space_left(&self) -> Result<Option<u64>, StorageError> {
        self.engine.space_left()
    }
}

/// Runs `workload` on RocksDB, kills it at some writes, and cuts its log at `cuts` drawn bytes.
pub(super) fn cut(
    workload: &Workload,
    seed: u64,
    cuts: usize,
    report: &mut Report,
) -> io::Result<()> {
    let root = tempfile::tempdir()?;
    let mut rng = fastrand::Rng::with_seed(seed);
    // Requests share writes: there are fewer of these than operations.
    let spread = (workload.operations() / 4).max(2);
    let copy_at: Vec<u64> = (0..KILLS).map(|_| rng.u64(1..spread)).collect();
    let run = match run_once(workload, root.path(), copy_at) {
        Ok(run) => run,
        Err(Failed::Io(error)) => return Err(error),
        Err(Failed::Storage(error)) => {
            report.violated(format!("seed {seed}, RocksDB: {error}"));
            return Ok(());
        }
    };
    for (writes, facts) in &run.copies {
        report.rocks_kills += 1;
        let image = root.path().join("images").join(writes.to_string());
        if let Err(what) = check(workload, &image, facts, *writes) {
            report.violated(format!("seed {seed}, RocksDB killed after write {writes}: {what}"));
        }
    }
    for number in 0..cuts {
        report.rocks_log_cuts += 1;
        let image = root.path().join("cut").join(number.to_string());
        copy_directory(&root.path().join("last"), &image)?;
        let log = newest_log(&image)?;
        let length = fs::metadata(&log)?.len();
        let length = rng.u64(..=length);
        fs::OpenOptions::new().write(true).open(&log)?.set_len(length)?;
        // The store's note of what it synced would refuse what is tried here: that a log which
        // ends anywhere gives back all that stands before its end.
        fs::remove_file(image.join("SYNCED"))?;
        let whole = run.log_lengths.iter().take_while(|end| **end <= length).count();
        let writes = u64::try_from(whole).expect("a usize fits 64 bits");
        if let Err(what) = check(workload, &image, &run.facts, writes) {
            report.violated(format!("seed {seed}, RocksDB's log cut at byte {length}: {what}"));
        }
        fs::remove_dir_all(&image)?;
    }
    Ok(())
}

struct Run {
    copies: Vec<(u64, Vec<Vec<Fact>>)>,
    log_lengths: Vec<u64>,
    facts: Vec<Vec<Fact>>,
}

enum Failed {
    Io(io::Error),
    Storage(StorageError),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<StorageError> for Failed {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

fn run_once(workload: &Workload, root: &Path, copy_at: Vec<u64>) -> Result<Run, Failed> {
    let (directory, images) = (root.join("live"), root.join("images"));
    fs::create_dir_all(&images)?;
    let journals = workload.journals();
    let writes = Arc::new(AtomicU64::new(0));
    let watched = Arc::new(Watched {
        engine: RocksEngine::open(&directory, RocksOptions::default())?,
        directory: directory.clone(),
        images,
        writes: writes.clone(),
        copy_at,
        journals: journals.clone(),
        seen: Mutex::default(),
    });
    let writer = LogWriter::on_thread(watched.clone())?;
    on_one_thread(workload.run(watched.clone(), writer, &journals, &writes));
    // While it is open: closing would tidy up.
    copy_directory(&directory, &root.join("last"))?;
    let seen = std::mem::take(&mut *watched.seen.lock().unwrap_or_else(PoisonError::into_inner));
    if let Some(error) = seen.failed {
        return Err(error.into());
    }
    let facts = journals.iter().map(Journal::copy).collect();
    Ok(Run { copies: seen.copies, log_lengths: seen.log_lengths, facts })
}

fn check(
    workload: &Workload,
    image: &Path,
    facts: &[Vec<Fact>],
    writes: u64,
) -> Result<(), String> {
    let engine = RocksEngine::open(image, RocksOptions::default());
    let engine: Arc<dyn Engine> = Arc::new(engine.map_err(|error| error.to_string())?);
    on_one_thread(workload.check(engine, facts, writes))
}

fn newest_log(directory: &Path) -> io::Result<PathBuf> {
    let mut logs = Vec::new();
    for file in fs::read_dir(directory)? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            logs.push(path);
        }
    }
    logs.into_iter().max().ok_or_else(|| io::Error::other("RocksDB has no write-ahead log"))
}

fn copy_directory(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for file in fs::read_dir(from)? {
        let file = file?;
        fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}
