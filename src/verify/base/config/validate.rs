//! What users of a configuration rely on: its ranges, its contradictions, its text form.

use std::num::NonZeroU32;
use std::time::Duration;

use super::*;
use crate::base::config::{Loopback, WhenFull};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

fn field(config: Config) -> Option<&'static str> {
    config.check().err().and_then(|error| error.field())
}

#[test]
fn the_defaults_are_valid() {
    let settings = Settings::for_tests();
    assert_eq!(settings.max_inbound, settings.max_sessions * 3 / 4);
    assert_eq!(field(Config::default()), None);
}

#[test]
fn zero_and_too_much_are_refused_by_name() {
    let config = Config::default;
    let cases = [
        ("connect_timeout", config().connect_timeout(Duration::ZERO)),
        ("connect_timeout", config().connect_timeout(Duration::MAX)),
        ("dial_stagger", config().dial_stagger(Duration::ZERO)),
        ("max_message_size", config().max_message_size(0)),
        ("max_message_size", config().max_message_size(16 * MIB + 1)),
        ("max_queue", config().max_queue(usize::MAX)),
        ("max_idle", config().max_idle(Some(Duration::ZERO))),
        ("max_age", config().max_age(Some(Duration::MAX))),
        ("max_sessions", config().max_sessions(0)),
        ("source_rate", config().source_rate(0)),
        ("rekey_after_bytes", config().rekey_after_bytes(0)),
        ("rekey_after_bytes", config().rekey_after_bytes(u64::MAX)),
        ("event_capacity", config().event_capacity(usize::MAX)),
        ("network_id", config().network_id(vec![0; 256])),
        ("application_payload", config().application_payload(vec![0; 16 * KIB + 1].into())),
    ];
    for (name, config) in cases {
        assert_eq!(field(config), Some(name));
    }
}

#[test]
fn contradictions_are_refused_by_name() {
    let config = Config::default;
    let second = SECOND;
    let cases = [
        ("max_age", config().max_age(Some(MINUTE))),
        ("max_queue", config().max_queue(MIB)),
        ("max_queue", config().min_queue(8 * MIB)),
        ("max_buffered_bytes", config().max_buffered_bytes(MIB)),
        ("max_undelivered", config().max_undelivered(MIB)),
        ("inbox_bytes", config().inbox_bytes(MIB)),
        ("dial_timeout", config().dial_timeout(second)),
        ("handshake_timeout", config().handshake_timeout(second)),
        ("stall_timeout", config().stall_timeout(second)),
        ("max_backoff", config().max_backoff(MS)),
        ("max_sessions", config().max_sessions(10).max_inbound(11)),
    ];
    for (name, config) in cases {
        assert_eq!(field(config), Some(name));
    }
}

#[test]
fn an_error_says_what_is_wrong_and_what_to_do() {
    let text = |config: Config| config.check().unwrap_err().to_string();
    assert_eq!(
        text(Config::default().max_age(Some(MINUTE))),
        "max_age is 60s, but max_idle asks for at least 300s: raise max_age or lower max_idle"
    );
    assert_eq!(
        text(Config::default().max_sessions(0)),
        "max_sessions is 0: choose a value from 1 to 10000000"
    );
    assert_eq!(
        text(Config::default().network_id(vec![0; 300])),
        "network_id is 300 bytes long: shorten it to at most 255"
    );
}

#[test]
fn small_pools_and_switched_off_expiry_are_valid() {
    let small = Config::default().max_sessions(1);
    assert_eq!(small.validate().unwrap().max_inbound, 1);
    let dial_only = Config::default().max_inbound(0);
    assert_eq!(dial_only.validate().unwrap().max_inbound, 0);
    let ageless = Config::default().max_age(None).max_idle(Some(MONTH));
    assert!(ageless.check().is_ok());
}

#[test]
fn debug_output_is_short_whatever_the_payload() {
    let config = Config::default().application_payload(vec![b'x'; 16 * KIB].into());
    let text = format!("{config:?}");
    assert!(text.contains("max_sessions: 4096"), "{text}");
    assert!(text.len() < 4 * KIB, "{}", text.len());
}

#[cfg(feature = "serde")]
mod text {
    use super::*;
    use crate::base::suite::Suite;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Config, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let config = read("").unwrap();
        let defaults = toml::to_string(&Config::default()).unwrap();
        assert_eq!(toml::to_string(&config).unwrap(), defaults);
    }

    #[test]
    fn every_form_is_read() {
        let config = read(
            r#"
            suite = "aesgcm-sha256"
            network_id = "testnet"
            application_payload = [0, 255]
            ping_after = "90s"
            dial_stagger = "1s 500ms"
            max_idle = "none"
            max_age = "2h"
            max_leases = 7
            when_full = "fail"
            limit_loopback = "limited"
            max_sessions = 100
            max_inbound = 5
            "#,
        )
        .unwrap();
        let settings = config.validate().unwrap();
        assert_eq!(settings.suite, Suite::AesGcmSha256);
        assert_eq!(settings.network_id, b"testnet");
        assert_eq!(settings.application_payload, [0, 255].as_slice());
        assert_eq!(settings.ping_after, 90 * SECOND);
        assert_eq!(settings.dial_stagger, 1500 * MS);
        assert_eq!((settings.max_idle, settings.max_age), (None, Some(2 * HOUR)));
        assert_eq!(settings.max_leases, NonZeroU32::new(7));
        assert_eq!(settings.when_full, WhenFull::Fail);
        assert_eq!(settings.limit_loopback, Loopback::Limited);
        assert_eq!((settings.max_sessions, settings.max_inbound), (100, 5));
    }

    #[test]
    fn a_bad_field_is_named_and_its_form_explained() {
        for (text, name, problem) in [
            ("max_age = \"90 parsecs\"", "max_age", "parsecs"),
            ("max_age = 90", "max_age", "such as \"90s\""),
            ("connect_timeout = 10", "connect_timeout", "such as \"90s\""),
            ("connect_timeout = \"none\"", "connect_timeout", "such as \"90s\""),
            ("max_sessions = -1", "max_sessions", "-1"),
            ("max_sessions = \"many\"", "max_sessions", "many"),
            ("max_leases = 0", "max_leases", "nonzero"),
            ("when_full = \"panic\"", "when_full", "`wait`"),
            ("suite = \"rot13\"", "suite", "chachapoly-blake2s"),
            ("application_payload = [256]", "application_payload", "256"),
            ("max_sesions = 10", "max_sesions", "unknown field"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(name), "{text}: {error}");
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn a_format_without_places_in_its_errors_names_the_field_too() {
        let read = |text| serde_json::from_str::<Config>(text).unwrap_err().to_string();
        assert!(read(r#"{"max_sessions": -1}"#).contains("max_sessions: "));
        assert!(read(r#"{"ping_after": "soon"}"#).contains("ping_after: "));
        assert!(
            read(r#"{"max_queue": 1, "max_queue": 1}"#).contains("duplicate field `max_queue`")
        );
        assert!(read(r#"{"max_que": 1}"#).contains("unknown field `max_que`"));
    }

    #[test]
    fn bytes_that_are_no_text_go_round() {
        let config = Config::default().network_id(vec![0xff, 0, 7]).max_leases(NonZeroU32::new(3));
        let written = toml::to_string(&config).unwrap();
        let settings = read(&written).unwrap().validate().unwrap();
        assert_eq!(settings.network_id, [0xff, 0, 7]);
        assert_eq!(settings.max_leases, NonZeroU32::new(3));
    }

    /// Lines that are nearly right reach further than arbitrary text.
    fn line() -> impl Strategy<Value = String> {
        let name = prop::sample::select(Config::FIELDS);
        let value = prop_oneof![
            any::<i64>().prop_map(|number| number.to_string()),
            any::<f64>().prop_map(|number| format!("{number:?}")),
            prop::sample::select(vec!["true", "[]", "{}", "[1, 999]", "1979-05-27", "\"none\""])
                .prop_map(str::to_string),
            "[0-9]{1,25}(s|ms|h|years|)".prop_map(|text| format!("{text:?}")),
            ".{0,12}".prop_map(|text| format!("{text:?}")),
        ];
        (name, value).prop_map(|(name, value)| format!("{name} = {value}"))
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".{0,200}") {
            let _ = read(&text).map(|config| config.check());
        }

        #[test]
        fn what_can_be_read_can_be_checked_and_goes_round(
            lines in prop::collection::vec(line(), 0..6),
        ) {
            if let Ok(config) = read(&lines.join("\n")) {
                let _ = config.check();
                let written = toml::to_string(&config).unwrap();
                let back = read(&written).unwrap();
                prop_assert_eq!(toml::to_string(&back).unwrap(), written);
            }
        }
    }
}
