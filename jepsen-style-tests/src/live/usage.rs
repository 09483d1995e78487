//! What a process used of the machine, from /proc. Linux only.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;

/// USER_HZ, in which the kernel tells times to programs: 100 wherever Rust's standard library
/// runs on Linux, whatever the kernel counts in itself.
const TICKS_PER_SECOND: u64 = 100;

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Memory {
    /// In use at this moment.
    pub(super) resident: u64,
    /// The most that was ever in use.
    pub(super) resident_max: u64,
}

/// Processor time that a process used since its start, all threads together, user and system.
///
/// # Errors
/// If there is no such process.
pub(super) fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let stat = read(pid, "stat")?;
    let ticks = ticks(&stat).context("/proc/PID/stat has an unknown form")?;
    Ok(Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND))
}

/// Memory that a process uses and has used.
///
/// # Errors
/// If there is no such process.
pub(super) fn memory(pid: u32) -> anyhow::Result<Memory> {
    let status = read(pid, "status")?;
    let bytes = |name: &str| kibibytes(&status, name).map(|kib| kib * 1024);
    let memory = bytes("VmRSS:").zip(bytes("VmHWM:"));
    let (resident, resident_max) = memory.context("/proc/PID/status has an unknown form")?;
    Ok(Memory { resident, resident_max })
}

fn read(pid: u32, file: &str) -> anyhow::Result<String> {
    fs::read_to_string(format!("/proc/{pid}/{file}"))
        .with_context(|| format!("process {pid} is not there"))
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

fn kibibytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
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
    fn memory_is_read_in_bytes() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(kibibytes(status, "VmHWM:"), Some(2_048));
        assert_eq!(kibibytes(status, "VmSwap:"), None);
    }

    #[test]
    fn this_process_uses_memory() {
        let memory = memory(std::process::id()).unwrap();
        assert!(memory.resident > 0 && memory.resident_max >= memory.resident);
        assert!(cpu_time(std::process::id()).is_ok());
    }
}
