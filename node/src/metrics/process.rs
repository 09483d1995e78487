//! What is read from the system at each scrape, and the text that is served.
//!
//! Apart from [`Metrics`], which every node has: a simulated node has no process and no disk of
//! its own. A value that the system does not give (no /proc, for example) is left out; it never
//! fails the scrape.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use rustix::time::{ClockId, clock_gettime};

use super::Metrics;
use crate::limits;

/// All that a scrape of this process returns.
#[derive(Debug)]
pub struct Exposition {
    metrics: Metrics,
    system: Registry,
}

#[derive(Debug)]
struct System {
    data_dir: PathBuf,
}

impl Exposition {
    /// The metrics of a node, its process and the disk of its data directory.
    pub fn new(metrics: Metrics, data_dir: PathBuf) -> Exposition {
        let mut system = Registry::default();
        system.register_collector(Box::new(System { data_dir }));
        Exposition { metrics, system }
    }

    /// OpenMetrics text, version 1.0.0. Reads the file system: not for an async thread.
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode_registry(&mut text, &self.metrics.registry)
            .and_then(|()| encode_registry(&mut text, &self.system))
            .and_then(|()| encode_eof(&mut text))
            .expect("a string takes all");
        text
    }
}

impl Collector for System {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        if let Some(cpu) = cpu_time() {
            let cpu = ConstCounter::new(cpu.as_secs_f64());
            let (name, help) = ("process_cpu", "Processor time of this process");
            let metric =
                to.encode_descriptor(name, help, Some(&Unit::Seconds), cpu.metric_type())?;
            cpu.encode(metric)?;
        }
        let gauges = [
            ("process_resident_memory", "Memory of this process", resident_bytes()),
            ("quipu_disk_used", "Size of the data directory", used_bytes(&self.data_dir)),
            (
                "quipu_disk_free",
                "Free on the disk of the data directory",
                free_bytes(&self.data_dir),
            ),
        ];
        for (name, help, bytes) in gauges {
            let Some(bytes) = bytes else { continue };
            let gauge = ConstGauge::new(bytes);
            let metric =
                to.encode_descriptor(name, help, Some(&Unit::Bytes), gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        Ok(())
    }
}

fn cpu_time() -> Option<Duration> {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Some(Duration::new(time.tv_sec.try_into().ok()?, time.tv_nsec.try_into().ok()?))
}

fn resident_bytes() -> Option<u64> {
    resident_bytes_in(&fs::read_to_string("/proc/self/status").ok()?)
}

fn resident_bytes_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// What a process without privileges may still write.
fn free_bytes(directory: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(directory).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}

/// Sizes of all files below `directory`. Files that vanish meanwhile count 0: the storage engine
/// deletes them as it likes.
fn used_bytes(directory: &Path) -> Option<u64> {
    let mut bytes = 0_u64;
    let mut seen = 0;
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        let Ok(entries) = fs::read_dir(directory) else { continue };
        for entry in entries.flatten() {
            seen += 1;
            if seen > limits::SCRAPE_FILES_MAX {
                return Some(bytes);
            }
            // Does not follow symbolic links, so there is no way round in circles.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                directories.push(entry.path());
            } else {
                bytes = bytes.saturating_add(metadata.len());
            }
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_bytes() {
        let status = "Name:\tquipud\nVmHWM:\t    9999 kB\nVmRSS:\t    2048 kB\n";
        assert_eq!(resident_bytes_in(status), Some(2048 * 1024));
        assert_eq!(resident_bytes_in("Name:\tquipud\n"), None);
        assert_eq!(resident_bytes_in("VmRSS:\tmany kB\n"), None);
    }

    #[test]
    fn the_data_directory_is_summed_with_what_is_below() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("db")).unwrap();
        fs::write(directory.path().join("identity"), [0; 10]).unwrap();
        fs::write(directory.path().join("db/log"), [0; 100]).unwrap();
        assert_eq!(used_bytes(directory.path()), Some(110));
    }

    #[test]
    fn a_scrape_ends_as_openmetrics_wants_and_has_both_parts() {
        let directory = tempfile::tempdir().unwrap();
        let metrics = Metrics::new();
        metrics.append.records.inc_by(3);
        let text = Exposition::new(metrics, directory.path().to_owned()).text();
        assert!(text.contains("\nquipu_append_records_total 3\n"), "{text}");
        assert!(text.contains("\nquipu_disk_used_bytes 0\n"), "{text}");
        assert!(text.ends_with("\n# EOF\n"), "{text}");
    }
}
