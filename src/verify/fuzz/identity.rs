//! Entry function for fuzzing key files and the text forms of peers and addresses.

use crate::base::address::{Address, PeerAddress};
use crate::base::id::PeerId;

use super::{decode, encode};

/// Reads `data` as a key file, and as the text forms of a peer and of its
/// address. What is taken must be written as it was read, so that nothing has two forms.
pub fn identity_parse(data: &[u8]) {
    if let Ok(identity) = decode(data) {
        assert_eq!(encode(&identity.key).as_slice(), data);
    }
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(peer) = text.parse::<PeerId>() {
        assert_eq!(peer.to_string(), text);
    }
    if let Ok(address) = text.parse::<Address>() {
        // A socket address may be written in several ways, a host in one.
        let written = address.to_string();
        assert!(written == text || matches!(address, Address::Socket(_)));
        assert_eq!(written.parse(), Ok(address));
    }
    if let Ok(at) = text.parse::<PeerAddress>() {
        assert_eq!(at.to_string().parse(), Ok(at));
    }
}
