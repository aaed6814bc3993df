//! Unit tests of `base/identity.rs`.

use super::*;
use proptest::prelude::*;

fn written(identity: &Identity) -> Vec<u8> {
    encode(&identity.key).to_vec()
}

#[test]
fn a_saved_key_is_loaded_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("router.key");
    let identity = Identity::generate();
    identity.save(&path).unwrap();
    let loaded = Identity::load(&path).unwrap();
    assert_eq!(loaded.peer_id(), identity.peer_id());
    assert_eq!(loaded.key.secret(), identity.key.secret());
    assert_eq!(fs::read(&path).unwrap().len(), FILE);
    let left: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "no temporary file stays");
}

#[test]
fn an_existing_file_is_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("router.key");
    let first = Identity::generate();
    first.save(&path).unwrap();
    let refused = Identity::generate().save(&path);
    assert!(matches!(refused, Err(IdentityError::Exists { .. })));
    assert_eq!(Identity::load(&path).unwrap().peer_id(), first.peer_id());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn many_who_generate_at_once_get_one_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("router.key");
    let ids: Vec<PeerId> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| Identity::load_or_generate(&path).unwrap().peer_id()))
            .collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(Identity::load_or_generate(&path).unwrap().peer_id(), ids[0]);
}

#[cfg(unix)]
#[test]
fn only_the_owner_may_have_access() {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("router.key");
    Identity::generate().save(&path).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&path), 0o600);
    for open in [0o640, 0o604, 0o620, 0o644, 0o601] {
        fs::set_permissions(&path, fs::Permissions::from_mode(open)).unwrap();
        let error = Identity::load(&path).unwrap_err();
        assert!(matches!(error, IdentityError::Permissions { mode, .. } if mode == open));
        assert!(error.to_string().contains("chmod 600"), "{error}");
        // Nor is a file that is open to others quietly replaced by a new key.
        assert!(Identity::load_or_generate(&path).is_err());
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    Identity::load(&path).unwrap();
}

#[test]
fn what_is_no_file_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let load = |path: &Path| Identity::load(path).unwrap_err();
    let missing = load(&directory.path().join("none"));
    assert!(matches!(missing, IdentityError::Io { .. }));
    assert!(missing.to_string().contains("none"), "names the file: {missing}");
    assert!(matches!(load(directory.path()), IdentityError::Io { .. }));
    let nowhere = Identity::generate().save(directory.path().join("no/such/router.key"));
    assert!(matches!(nowhere, Err(IdentityError::Io { .. })));
}

#[test]
fn every_changed_bit_is_noticed() {
    let good = written(&Identity::from_secret([0x42; KEY]));
    assert!(decode(&good).is_ok());
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&bad).is_err(), "bit {bit}");
    }
}

#[test]
fn every_cut_is_noticed() {
    let good = written(&Identity::from_secret([0x42; KEY]));
    for length in 0..good.len() {
        assert!(decode(&good[..length]).is_err(), "{length} bytes");
    }
    assert!(decode(&[&good[..], b"\n"].concat()).is_err());
}

#[test]
fn errors_say_what_is_wrong() {
    let one = String::from_utf8(written(&Identity::from_secret([1; KEY]))).unwrap();
    let two = String::from_utf8(written(&Identity::from_secret([2; KEY]))).unwrap();
    let wrong = |text: &str| decode(text.as_bytes()).unwrap_err();
    assert_eq!(wrong("-----BEGIN PRIVATE KEY-----"), ParseError::Magic);
    assert_eq!(wrong(""), ParseError::Magic);
    assert_eq!(wrong(&one.replace("key 1", "key 2")), ParseError::Version);
    assert_eq!(wrong(&one.replace("key 1", "key 11")), ParseError::Version);
    let damaged = |text: &str| match wrong(text) {
        ParseError::Damaged(what) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(damaged(&one.replace("public", "secret")), Corruption::Form);
    assert_eq!(damaged(&one[..one.len() - 1]), Corruption::Form);
    assert_eq!(damaged(&one.replace("public ", "public 1")[..FILE]), Corruption::Form);
    let (head, _) = one.split_at(FILE - 60);
    let (_, tail) = two.split_at(FILE - 60);
    assert_eq!(damaged(&format!("{head}{tail}")), Corruption::Mismatch);
    let at = one.find("secret ").unwrap() + 7;
    let upper = format!("{}{}", &one[..at], one[at..].to_uppercase());
    assert_eq!(damaged(&upper), Corruption::Secret);
    let at = one.find("public ").unwrap() + 7;
    let mut public = one.clone();
    public.replace_range(at..at + 1, "1");
    assert_eq!(damaged(&public), Corruption::Public);
}

#[test]
fn debug_shows_the_short_name_only() {
    let identity = Identity::from_secret([3; KEY]);
    let expected = format!("Identity({})", identity.peer_id().short());
    assert_eq!(format!("{identity:?}"), expected);
}

proptest! {
    #[test]
    fn any_secret_goes_round(secret: [u8; 32]) {
        let identity = Identity::from_secret(secret);
        let again = decode(&written(&identity)).unwrap();
        prop_assert_eq!(again.peer_id(), identity.peer_id());
    }

    #[test]
    fn no_input_panics(text: Vec<u8>) {
        let _ = decode(&text);
    }
}
