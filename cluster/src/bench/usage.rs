//! What a process used of the machine, from /proc. Linux only.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;

/// USER_HZ, in which the kernel tells times to programs: 100 wherever Rust's standard library
/// runs on Linux, whatever the kernel counts in itself.
const TICKS_PER_SECOND: u64 = 100;

/// What a process has used since its start, and the memory it holds at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usage {
    /// Processor time, all threads together, user and system; in steps of 10 ms.
    pub(super) cpu: Duration,
    /// Bytes of memory in use.
    pub(super) rss_bytes: u64,
    /// Bytes that it made the kernel write to disk; what was deleted before it was written does
    /// not count.
    pub(super) written_bytes: u64,
}

/// Looks at a process.
///
/// # Errors
/// If there is no such process, or /proc has another form.
pub(super) fn usage(pid: u32) -> anyhow::Result<Usage> {
    let stat = read(pid, "stat")?;
    let cpu = ticks(&stat).context("/proc/PID/stat has an unknown form")?;
    let status = read(pid, "status")?;
    let rss = number(&status, "VmRSS:").context("/proc/PID/status has an unknown form")?;
    let io = read(pid, "io")?;
    let written = number(&io, "write_bytes:").zip(number(&io, "cancelled_write_bytes:"));
    let (written, cancelled) = written.context("/proc/PID/io has an unknown form")?;
    Ok(Usage {
        cpu: Duration::from_millis(cpu * 1_000 / TICKS_PER_SECOND),
        rss_bytes: rss * 1_024,
        written_bytes: written.saturating_sub(cancelled),
    })
}

fn read(pid: u32, file: &str) -> anyhow::Result<String> {
    fs::read_to_string(format!("/proc/{pid}/{file}"))
        .with_context(|| format!("can't read /proc/{pid}/{file}"))
}

/// Fields 14 and 15 of proc(5), stat. The second field, the name, may hold anything up to the last
/// parenthesis.
fn ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// The number behind a name at the beginning of a line.
fn number(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_behind_a_name_with_anything_in_it() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 9 0 1 0 120 30 0 0 20 0 4 0 88 9 9";
        assert_eq!(ticks(stat), Some(150));
        assert_eq!(ticks("7"), None);
    }

    #[test]
    fn numbers_are_found_by_the_whole_name() {
        let io = "wchar: 1\nwrite_bytes: 4096\ncancelled_write_bytes: 512\n";
        assert_eq!(number(io, "write_bytes:"), Some(4_096));
        assert_eq!(number(io, "cancelled_write_bytes:"), Some(512));
        assert_eq!(number("VmRSS:\t    1024 kB\n", "VmRSS:"), Some(1_024));
        assert_eq!(number(io, "rchar:"), None);
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(usage(std::process::id()).unwrap().rss_bytes > 0);
        assert!(usage(u32::MAX).is_err());
    }
}
