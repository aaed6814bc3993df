//! Our own static key pair, and the file that keeps it.
//!
//! Owns the only way in and out for a secret key. It must never show one: not in `Debug`, not in an
//! error; every copy that it makes is wiped.
//!
//! # The key file
//!
//! Three lines of ASCII, 136 bytes, each ended by a line feed:
//!
//! ```text
//! noise-pool key 1
//! public <peer id>
//! secret <the secret key, written as a peer id is>
//! ```
//!
//! The public key is the checksum: it must be that of the secret key, and the secret key must be in
//! its clamped form (RFC 7748, section 5), so that every changed bit is noticed.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::BASE32_NOPAD;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::base::environment::Entropy;
use crate::base::environment::OsEntropy;
use crate::base::id::PeerId;
use crate::base::key::KEY;
use crate::base::key::StaticKey;

/// The first line: the magic, and the version of the format.
const HEAD: &str = "noise-pool key 1";
/// The magic alone.
const MAGIC: &str = "noise-pool key ";
/// Characters of 32 bytes in base32.
const TEXT: usize = 52;
/// The length of a whole key file in bytes.
const FILE: usize = HEAD.len() + 1 + 2 * ("public ".len() + TEXT + 1);

/// Our own static key pair, whose public half is our name to every peer.
///
/// Clones share one key, which is wiped from memory when the last is dropped.
#[derive(Clone)]
pub struct Identity {
    key: Arc<StaticKey>,
}

impl Identity {
    /// Makes a new one from the operating system's randomness.
    ///
    /// # Panics
    /// If the operating system has no randomness to give: a predictable key would be worse.
    pub fn generate() -> Self {
        let mut secret = Zeroizing::new([0; KEY]);
        OsEntropy.fill(&mut *secret);
        Self::from_secret(*secret)
    }

    /// Takes an X25519 secret key, which may be any 32 bytes; it is clamped (RFC 7748, section 5).
    ///
    /// The bytes must be secret and random, as everything rests on them.
    pub fn from_secret(secret: [u8; 32]) -> Self {
        let secret = Zeroizing::new(secret);
        Self { key: Arc::new(StaticKey::new(*secret)) }
    }

    /// Our public name.
    pub fn peer_id(&self) -> PeerId {
        PeerId::from_bytes(*self.key.public())
    }

    /// Reads a key file. This blocks for as long as the file system takes.
    ///
    /// # Errors
    /// [`IdentityError::Io`]; [`IdentityError::Permissions`] if others than its owner may read or
    /// write it (Unix); [`IdentityError::NotAKeyFile`], [`IdentityError::Version`] and
    /// [`IdentityError::Damaged`] for what is in it.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let path = path.as_ref();
        let io = |source| IdentityError::io(path, source);
        let file = File::open(path).map_err(io)?;
        // Of the open file, so that it cannot be exchanged between the check and the reading.
        check_access(&file, path)?;
        // Of this size from the beginning: a vector that grows leaves copies behind.
        let mut text = Zeroizing::new(Vec::with_capacity(FILE + 1));
        file.take(FILE as u64 + 1).read_to_end(&mut text).map_err(io)?;
        decode(&text).map_err(|wrong| wrong.at(path))
    }

    /// Writes a new key file, readable by its owner only (mode 0600 on Unix).
    ///
    /// The file appears whole or not at all, also if the machine fails meanwhile. An existing file is
    /// never replaced: a lost key is a lost identity. This blocks for as long as the file system
    /// takes, which must know hard links.
    ///
    /// # Errors
    /// [`IdentityError::Exists`] if there is something at `path`; [`IdentityError::Io`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), IdentityError> {
        let path = path.as_ref();
        write_new(path, &encode(&self.key)).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => IdentityError::Exists { path: path.into() },
            _ => IdentityError::io(path, source),
        })
    }

    /// Reads the key file, or writes one with a new key if there is none.
    ///
    /// If several processes do this at once, all get the key of the one that was first.
    ///
    /// # Errors
    /// Those of [`Identity::load`] and [`Identity::save`], except for a file that does not exist.
    pub fn load_or_generate(path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let path = path.as_ref();
        match Self::load(path) {
            Err(IdentityError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let new = Self::generate();
        match new.save(path) {
            Ok(()) => Ok(new),
            Err(IdentityError::Exists { .. }) => Self::load(path),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn key(&self) -> &Arc<StaticKey> {
        &self.key
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.peer_id().short())
    }
}

/// Why an identity could not be loaded or saved.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The file system failed.
    #[error("{}: the key file could not be read or written", path.display())]
    Io {
        /// The key file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// There is already something where a new key file was to be written.
    #[error("{}: exists, and a key file is never replaced", path.display())]
    Exists {
        /// The key file.
        path: PathBuf,
    },
    /// The key file is open to others than its owner.
    #[error(
        "{}: others than its owner may use this key file (mode {mode:04o}); run chmod 600 on it",
        path.display()
    )]
    Permissions {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is not a key file at all.
    #[error("{}: not a noise-pool key file", path.display())]
    NotAKeyFile {
        /// The file.
        path: PathBuf,
    },
    /// The key file is of a version that this crate does not know.
    #[error("{}: a key file of another version than 1", path.display())]
    Version {
        /// The key file.
        path: PathBuf,
    },
    /// The key file is cut, or something in it has changed.
    #[error("{}: the key file is damaged: {what}", path.display())]
    Damaged {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        what: Corruption,
    },
}

/// How a key file is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Corruption {
    /// It is too short or too long, or its lines do not begin as they must.
    #[error("it does not have the form of one")]
    Form,
    /// The public key's line is no peer id.
    #[error("its public key is malformed")]
    Public,
    /// The secret key's line is no secret key.
    #[error("its secret key is malformed")]
    Secret,
    /// The two keys do not belong together.
    #[error("its keys do not belong together")]
    Mismatch,
}

impl IdentityError {
    fn io(path: &Path, source: io::Error) -> Self {
        let path = path.into();
        Self::Io { path, source }
    }
}

/// What can be wrong with a key file's content.
#[derive(Debug, PartialEq, Eq)]
enum ParseError {
    Magic,
    Version,
    Damaged(Corruption),
}

impl ParseError {
    fn at(self, path: &Path) -> IdentityError {
        let path = path.into();
        match self {
            Self::Magic => IdentityError::NotAKeyFile { path },
            Self::Version => IdentityError::Version { path },
            Self::Damaged(what) => IdentityError::Damaged { path, what },
        }
    }
}

fn encode(key: &StaticKey) -> Zeroizing<Vec<u8>> {
    let mut secret = Zeroizing::new([0; TEXT]);
    BASE32_NOPAD.encode_mut(key.secret(), &mut *secret);
    secret.make_ascii_lowercase();
    let public = PeerId::from_bytes(*key.public());
    let mut text = Zeroizing::new(Vec::with_capacity(FILE));
    text.extend_from_slice(format!("{HEAD}\npublic {public}\nsecret ").as_bytes());
    text.extend_from_slice(&*secret);
    text.push(b'\n');
    text
}

fn decode(text: &[u8]) -> Result<Identity, ParseError> {
    let rest = text.strip_prefix(MAGIC.as_bytes()).ok_or(ParseError::Magic)?;
    let version = HEAD.strip_prefix(MAGIC).unwrap_or_default();
    let rest = rest.strip_prefix(version.as_bytes()).unwrap_or(b"");
    let rest = rest.strip_prefix(b"\n").ok_or(ParseError::Version)?;
    let form = || ParseError::Damaged(Corruption::Form);
    let (public, rest) = field(rest, b"public ").ok_or_else(form)?;
    let (secret, rest) = field(rest, b"secret ").ok_or_else(form)?;
    if !rest.is_empty() {
        return Err(form());
    }
    let public: PeerId = str::from_utf8(public)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(ParseError::Damaged(Corruption::Public))?;
    let malformed = || ParseError::Damaged(Corruption::Secret);
    let mut digits: Zeroizing<[u8; TEXT]> = Zeroizing::new(*secret);
    if digits.iter().any(u8::is_ascii_uppercase) {
        return Err(malformed());
    }
    digits.make_ascii_uppercase();
    let mut secret = Zeroizing::new([0; KEY]);
    BASE32_NOPAD.decode_mut(&*digits, &mut *secret).map_err(|_| malformed())?;
    let identity = Identity::from_secret(*secret);
    if identity.key.secret() != &*secret {
        return Err(malformed());
    }
    if identity.peer_id() != public {
        return Err(ParseError::Damaged(Corruption::Mismatch));
    }
    Ok(identity)
}

/// Takes the line `<name><52 characters>` off `text`.
fn field<'a>(text: &'a [u8], name: &[u8]) -> Option<(&'a [u8; TEXT], &'a [u8])> {
    let (value, rest) = text.strip_prefix(name)?.split_first_chunk()?;
    Some((value, rest.strip_prefix(b"\n")?))
}

#[cfg(unix)]
fn check_access(file: &File, path: &Path) -> Result<(), IdentityError> {
    use std::os::unix::fs::PermissionsExt;

    let metadata = file.metadata().map_err(|e| IdentityError::io(path, e))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if metadata.is_file() && mode & 0o077 != 0 {
        let path = path.into();
        return Err(IdentityError::Permissions { path, mode });
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_access(_: &File, _: &Path) -> Result<(), IdentityError> {
    Ok(())
}

/// Writes `content` to a file under a name of its own, then gives it its final name.
///
/// A hard link is the way to do the latter that fails if the name is taken, with nothing in between.
fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let mut random = [0; 8];
    OsEntropy.fill(&mut random);
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{:016x}.tmp", u64::from_be_bytes(random)));
    let temporary = Temporary(parent.join(temporary));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temporary.0)?;
    file.write_all(content)?;
    file.sync_all()?;
    drop(file);
    fs::hard_link(&temporary.0, path)?;
    drop(temporary);
    // The name is on disk only when its directory is.
    #[cfg(unix)]
    File::open(parent)?.sync_all()?;
    Ok(())
}

/// A file that is removed again whatever happens.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // A failure leaves the file behind under its own name; nothing more can be done here.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(any(test, fuzzing))]
#[path = "../verify/fuzz/identity.rs"]
pub(crate) mod fuzzing;

#[cfg(test)]
#[path = "../verify/base/identity.rs"]
mod tests;
