//! `quipud` as a process: signals, exit codes, and what its HTTP port says meanwhile.

#![allow(clippy::unwrap_used, reason = "a test may stop at what it did not expect")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStderr, Command, Stdio};

use node::config::{NodeConfig, SETTINGS};
use rustix::process::{Pid, Signal, kill_process};

/// A running `quipud`, killed when the test ends.
struct Process {
    child: Child,
    /// `None` once the test has closed it.
    log: Option<BufReader<ChildStderr>>,
    _data_dir: tempfile::TempDir,
}

impl Process {
    fn start(http_listen: &str) -> Process {
        let data_dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_quipud"));
        for setting in SETTINGS {
            command.env_remove(setting.environment_variable());
        }
        let mut child = command
            .args(["--node-id", "1", "--log-format", "json", "--http-listen", http_listen])
            .args(["--listen", &format!("127.0.0.1:{}", free_port())])
            .arg("--data-dir")
            .arg(data_dir.path())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = child.stderr.take().map(BufReader::new);
        Process { child, log, _data_dir: data_dir }
    }

    /// Reads the log up to a line that contains `text`.
    fn line_with(&mut self, text: &str) -> String {
        let mut seen = String::new();
        loop {
            let mut line = String::new();
            let length = self.log.as_mut().unwrap().read_line(&mut line).unwrap();
            assert!(length > 0, "the log ended without {text}:\n{seen}");
            if line.contains(text) {
                return line;
            }
            seen.push_str(&line);
        }
    }

    /// The address in the log line about the HTTP port, which is JSON.
    fn http_address(&mut self) -> String {
        let line = self.line_with("serves metrics and health");
        let (_, rest) = line.split_once("\"address\":\"").unwrap();
        rest.split_once('"').unwrap().0.to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    portpicker::pick_unused_port().unwrap()
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_fresh_node_is_alive_but_not_ready_and_stops_on_sigterm_with_0() {
    let mut process = Process::start("127.0.0.1:0");
    let http = process.http_address();
    assert!(get(&http, "/healthz").starts_with("HTTP/1.1 200 "));
    assert!(get(&http, "/readyz").starts_with("HTTP/1.1 503 "));
    let metrics = get(&http, "/metrics");
    assert!(metrics.contains("\nquipu_build_info{"), "{metrics}");
    assert!(metrics.contains("\nprocess_cpu_seconds_total "), "{metrics}");

    process.signal(Signal::TERM);
    assert_eq!(process.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_node_whose_log_nobody_reads_any_more_lives_on() {
    let mut process = Process::start("127.0.0.1:0");
    let http = process.http_address();
    // Closes the read end of the pipe: every further line fails.
    process.log = None;
    assert!(get(&http, "/healthz").starts_with("HTTP/1.1 200 "));
    process.signal(Signal::INT);
    assert_eq!(process.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_busy_http_port_is_named_and_ends_the_start_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut process = Process::start(&address);
    let line = process.line_with("cannot start");
    assert!(line.contains(&format!("http-listen: cannot listen on {address}")), "{line}");
    assert_eq!(process.child.wait().unwrap().code(), Some(1));
}

/// Set in the environment of the process that is to panic.
const PANIC_HERE: &str = "QUIPU_TEST_PANIC_HERE";

#[test]
fn a_panic_in_any_task_is_logged_and_aborts_the_process() {
    if std::env::var_os(PANIC_HERE).is_some() {
        return panic_in_a_task();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_panic_in_any_task_is_logged_and_aborts_the_process"])
        .env(PANIC_HERE, "yes")
        .output()
        .unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.signal(), Some(Signal::ABORT.as_raw()), "{log}");
    assert!(log.contains("panic: planted"), "{log}");
    assert!(log.contains("process.rs"), "{log}");
}

/// What `quipud` does when it starts, then a panic that tokio alone would have swallowed.
fn panic_in_a_task() {
    node::telemetry::install(&NodeConfig::default().log).unwrap();
    node::telemetry::abort_on_panic();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let task = runtime.spawn(async { panic!("planted") });
    let _: Result<(), _> = runtime.block_on(task);
}
