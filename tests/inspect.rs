//! The example `inspect`: what an operator sees of a saved snapshot.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::io::Cursor;
use std::path::Path;

use clap::Parser;

#[path = "../examples/inspect.rs"]
#[expect(dead_code, reason = "the test calls what `main` calls")]
mod inspect;

use inspect::{Arguments, Failure};

const STORED: &[u8] = include_bytes!("data/snapshot-v2.bin");

/// What `inspect -` shows for this input.
fn show(input: &[u8], arguments: &[&str]) -> Result<String, Failure> {
    let arguments = Arguments::parse_from(["inspect", "-"].iter().chain(arguments));
    let mut shown = Vec::new();
    inspect::run(&arguments, Cursor::new(input), &mut shown)?;
    Ok(String::from_utf8_lossy(&shown).into_owned())
}

fn shown(arguments: &[&str]) -> String {
    show(STORED, arguments).unwrap_or_else(|_| panic!("the committed snapshot can be shown"))
}

#[test]
fn tables_show_limits_sessions_dials_and_failures() {
    let text = shown(&[]);
    for part in [
        "Limits",
        "Sessions (2)",
        "Dials (1)",
        "Failures by cause",
        "Counters",
        "192.0.2.7:4567",
        "router.example:80",
        "committed",
        "draining",
        "verdict timed out",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
}

#[test]
fn every_column_sorts_and_shows() {
    use clap::ValueEnum;

    for column in inspect::Column::value_variants() {
        let name = column.to_possible_value().unwrap().get_name().to_string();
        let first = |arguments: &[&str]| {
            let json: serde_json::Value = serde_json::from_str(&shown(arguments)).unwrap();
            assert_eq!(json["sessions"].as_array().unwrap().len(), 1);
            json["sessions"][0]["session"].clone()
        };
        let min = first(&["--sort", &name, "--limit", "1", "--json"]);
        let greatest = first(&["--sort", &name, "--limit", "1", "--json", "--reverse"]);
        assert_ne!(min, greatest, "{name}: the committed sessions differ in every column");
        assert!(shown(&["--columns", &name]).contains(&name.replace('-', " ")), "{name}");
    }
}

#[test]
fn a_limit_is_told() {
    assert!(shown(&["--limit", "1"]).contains("Sessions (2, 1 shown)"));
}

#[test]
fn json_is_the_snapshot() {
    let expected = include_str!("data/snapshot-v2.json");
    let expected: serde_json::Value = serde_json::from_str(expected).unwrap();
    let json: serde_json::Value =
        serde_json::from_str(&shown(&["--json", "--sort", "session"])).unwrap();
    assert_eq!(json, expected);
}

#[test]
fn what_is_no_snapshot_and_what_is_not_there_are_told_apart() {
    assert!(matches!(show(b"hello", &[]), Err(Failure::Decode(_))));
    assert!(matches!(show(&STORED[..100], &[]), Err(Failure::Decode(_))));
    let missing = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/no-such-file");
    let arguments = Arguments::parse_from([Path::new("inspect"), &missing]);
    let outcome = inspect::run(&arguments, Cursor::new([]), Vec::new());
    assert!(matches!(outcome, Err(Failure::Read(_))));
}

#[test]
fn wrong_arguments_are_refused() {
    for arguments in [&["inspect"][..], &["inspect", "-", "--sort", "colour"]] {
        assert!(Arguments::try_parse_from(arguments).is_err());
    }
}
