//! What `quipud` reads before it starts: precedence, refusals, and what it prints.

#![allow(clippy::unwrap_used, reason = "a test may stop at what it did not expect")]

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use node::config::{self, Loaded, NodeConfig, Origin, SETTINGS};

const REQUIRED: [&str; 4] = ["--node-id", "7", "--data-dir", "d"];

fn load(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Loaded, String> {
    let arguments = [&["quipud"], arguments].concat().into_iter().map(OsString::from);
    let environment =
        environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    config::load(arguments, environment).map_err(|error| error.to_string())
}

fn load_required(more: &[&str], environment: &[(&str, &str)]) -> Result<Loaded, String> {
    load(&[&REQUIRED, more].concat(), environment)
}

fn written(directory: &tempfile::TempDir, text: &str) -> String {
    let path: PathBuf = directory.path().join("quipud.toml");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn quipud(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quipud"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with(config::ENVIRONMENT_PREFIX) {
            command.env_remove(name);
        }
    }
    command.args(arguments).output().unwrap()
}

#[test]
fn the_command_line_wins_over_the_environment_and_that_over_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = written(
        &directory,
        "node-id = 1\ndata-dir = 'from-file'\nheartbeat-ms = 101\nlog-level = 'warn'\n",
    );
    let environment =
        [("QUIPUD_NODE_ID", "2"), ("QUIPUD_HEARTBEAT_MS", "102"), ("HOME", "ignored")];
    let loaded = load(&["--config", &file, "--node-id", "3"], &environment).unwrap();

    assert_eq!(loaded.config.node_id, 3);
    assert_eq!(loaded.config.heartbeat.as_millis(), 102);
    assert_eq!(loaded.config.data_dir, Path::new("from-file"));
    assert_eq!(loaded.config.storage, NodeConfig::default().storage);

    assert_eq!(loaded.origin("node-id"), Origin::CommandLine("--node-id".to_owned()));
    let variable = "QUIPUD_HEARTBEAT_MS".to_owned();
    assert_eq!(loaded.origin("heartbeat-ms"), Origin::Environment(variable));
    assert_eq!(loaded.origin("log-level"), Origin::File { path: file.into(), line: 4 });
    assert_eq!(loaded.origin("storage-cache-bytes"), Origin::Default);
}

#[test]
fn the_file_may_be_named_by_the_environment() {
    let directory = tempfile::tempdir().unwrap();
    let file = written(&directory, "node-id = 4\ndata-dir = 'd'\njoin = ['a:1', 'b:2']\n");
    let loaded = load(&[], &[("QUIPUD_CONFIG", &file)]).unwrap();
    assert_eq!(loaded.config.node_id, 4);
    assert_eq!(loaded.config.join.len(), 2);
}

#[test]
fn advertise_follows_listen_unless_it_is_set() {
    let loaded = load_required(&["--listen", "127.0.0.1:1234"], &[]).unwrap();
    assert_eq!(loaded.config.advertise.to_string(), "127.0.0.1:1234");
    assert_eq!(loaded.origin("advertise"), Origin::Follows("listen"));

    let listen_anywhere = ["--listen", "0.0.0.0:1234"];
    let error = load_required(&listen_anywhere, &[]).unwrap_err();
    assert!(error.starts_with("advertise: 0.0.0.0:1234 can be listened on"), "{error}");

    let advertised = [&listen_anywhere[..], &["--advertise", "node-1:1234"]].concat();
    let loaded = load_required(&advertised, &[]).unwrap();
    assert_eq!(loaded.config.advertise.to_string(), "node-1:1234");
}

#[test]
fn a_setting_without_a_default_must_be_set() {
    let error = load(&["--data-dir", "d"], &[]).unwrap_err();
    assert_eq!(
        error,
        "node-id is not set; give --node-id, QUIPUD_NODE_ID, or `node-id = …` in the config file"
    );
    assert!(load(&["--node-id", "1"], &[]).unwrap_err().starts_with("data-dir is not set"));
}

#[test]
fn an_unknown_key_is_named_with_its_source_and_the_known_keys() {
    let directory = tempfile::tempdir().unwrap();
    let file = written(&directory, "node-id = 1\n\n[storage]\ncache-bytes = 1\n");
    let error = load_required(&["--config", &file], &[]).unwrap_err();
    assert!(error.starts_with(&format!("unknown key `storage` (file {file}, line 3)")), "{error}");
    for setting in SETTINGS {
        assert!(error.contains(setting.key), "{error}");
    }

    let error = load_required(&[], &[("QUIPUD_LISTE", "127.0.0.1:1")]).unwrap_err();
    let named = "unknown key `QUIPUD_LISTE` (environment variable QUIPUD_LISTE); known keys: ";
    assert!(error.starts_with(named), "{error}");
}

#[test]
fn a_bad_value_is_refused_with_its_source_and_what_would_be_good() {
    let directory = tempfile::tempdir().unwrap();
    let file = written(&directory, "storage-cache-bytes = 'much'\n");
    let error = load_required(&["--config", &file], &[]).unwrap_err();
    let place = format!("storage-cache-bytes: `much` (file {file}, line 1) is not possible: write");
    assert!(error.starts_with(&place), "{error}");

    let cases = [
        ("--node-id", "0"),
        ("--node-id", "one"),
        ("--listen", "localhost:9400"),
        ("--listen", "127.0.0.1:0"),
        ("--advertise", "http://node-1:9400"),
        ("--advertise", "[::]:9400"),
        ("--data-dir", ""),
        ("--join", "a:1,,b:2"),
        ("--http-listen", "9401"),
        ("--http-listen", "127.0.0.1:9400"),
        ("--log-format", "xml"),
        ("--log-level", "node=loud"),
        ("--max-append-in-flight-bytes", "1"),
        ("--disk-reserve-bytes", "18446744073709551615"),
        ("--storage-write-buffer-bytes", "99999999999999999999"),
        ("--election-timeout-ms", "600"),
        ("--heartbeat-ms", "0"),
    ];
    for (flag, value) in cases {
        let key = flag.trim_start_matches('-');
        let arguments: Vec<&str> = match flag {
            "--node-id" => vec!["--data-dir", "d", flag, value],
            "--data-dir" => vec!["--node-id", "7", flag, value],
            _ => [&REQUIRED[..], &[flag, value]].concat(),
        };
        let error = load(&arguments, &[]).unwrap_err();
        assert!(error.starts_with(&format!("{key}: ")), "{flag} {value}: {error}");
        assert!(error.contains(&format!("command line, {flag}")), "{flag} {value}: {error}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = load_required(&["--config", "no/such/file.toml"], &[]).unwrap_err();
    assert!(error.starts_with("config: cannot read no/such/file.toml: "), "{error}");

    let directory = tempfile::tempdir().unwrap();
    let itself = directory.path().to_str().unwrap();
    let error = load_required(&["--config", itself], &[]).unwrap_err();
    assert!(error.starts_with(&format!("config: cannot read {itself}: ")), "{error}");

    let endless = load_required(&["--config", "/dev/zero"], &[]).unwrap_err();
    assert!(endless.contains("longer than 1048576 bytes"), "{endless}");
}

#[test]
fn what_is_printed_is_a_file_that_gives_the_same_settings() {
    let arguments = [
        "--join",
        "a:1,b:2",
        "--http-listen",
        "127.0.0.1:0",
        "--log-format",
        "json",
        "--storage-cache-bytes",
        "1GiB",
        "--log-level",
        "info,[request{path=\"a\"}]=debug",
    ];
    let first = load_required(&arguments, &[("QUIPUD_HEARTBEAT_MS", "50")]).unwrap();
    let text = first.to_toml();
    let directory = tempfile::tempdir().unwrap();
    let again = load(&["--config", &written(&directory, &text)], &[]).unwrap();
    assert_eq!(again.config, first.config);

    assert!(text.contains("node-id = 7 # command line, --node-id\n"), "{text}");
    let heartbeat = "heartbeat-ms = 50 # environment variable QUIPUD_HEARTBEAT_MS\n";
    assert!(text.contains(heartbeat), "{text}");
    assert!(text.contains("# default: the value of listen\n"), "{text}");
    assert!(text.contains("disk-reserve-bytes = 536870912 # default\n"), "{text}");
}

#[test]
fn the_page_names_every_setting_with_its_variable_and_default() {
    let page = include_str!("../../docs/operating/configuration.md");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let found: Vec<Vec<String>> = rows
        .map(|row| row.trim_matches('|').split(" | ").take(3).map(|cell| cell.trim().into()))
        .map(Iterator::collect)
        .collect();
    let expected: Vec<Vec<String>> = SETTINGS
        .iter()
        .map(|setting| {
            let default = match setting.default_value() {
                _ if setting.required => "required".to_owned(),
                _ if setting.key == "advertise" => "`listen`".to_owned(),
                toml::Value::Array(_) => "empty".to_owned(),
                toml::Value::String(text) => format!("`{text}`"),
                value => format!("`{value}`"),
            };
            let variable = setting.environment_variable();
            vec![format!("`{}`", setting.key), format!("`{variable}`"), default]
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn quipud_prints_its_settings_and_exits_with_0() {
    let output = quipud(&["--node-id", "1", "--data-dir", "d", "--print-config"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("\ndata-dir = \"d\" # command line, --data-dir\n"), "{text}");
    assert!(output.stderr.is_empty());
}

#[test]
fn quipud_says_its_version_and_whether_it_is_of_the_bug_zoo() {
    let output = quipud(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    let version = env!("CARGO_PKG_VERSION");
    let expected = if cfg!(quipu_zoo) {
        format!("quipud {version} (bug zoo: not for use)\n")
    } else {
        format!("quipud {version}\n")
    };
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn quipud_exits_with_2_when_it_is_told_nonsense() {
    for arguments in [&["--no-such-flag"][..], &["--node-id", "0", "--data-dir", "d"], &[]] {
        let output = quipud(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty());
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("node-id") || text.contains("--no-such-flag"), "{text}");
    }
}
