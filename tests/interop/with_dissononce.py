"""The Noise half by `dissononce`: what wire.py needs of a library, and nothing of the wire."""

from dissononce.cipher.aesgcm import AESGCMCipher
from dissononce.cipher.chachapoly import ChaChaPolyCipher
from dissononce.dh.private import PrivateKey
from dissononce.dh.x25519.public import PublicKey
from dissononce.dh.x25519.x25519 import X25519DH
from dissononce.hash.blake2s import Blake2sHash
from dissononce.hash.sha256 import SHA256Hash
from dissononce.processing.handshakepatterns.interactive.XK import XKHandshakePattern
from dissononce.processing.impl.cipherstate import CipherState
from dissononce.processing.impl.handshakestate import HandshakeState
from dissononce.processing.impl.symmetricstate import SymmetricState

SUITES = {
    "Noise_XK_25519_ChaChaPoly_BLAKE2s": (ChaChaPolyCipher, Blake2sHash),
    "Noise_XK_25519_AESGCM_SHA256": (AESGCMCipher, SHA256Hash),
}


class Noise:
    """One side of one handshake, and then of one session."""

    def __init__(self, suite, prologue, secret, remote_static=None):
        cipher, hash_function = SUITES[suite]
        dh = X25519DH()
        self._initiator = remote_static is not None
        self._symmetric = SymmetricState(CipherState(cipher()), hash_function())
        self._handshake = HandshakeState(self._symmetric, dh)
        self._handshake.initialize(
            XKHandshakePattern(),
            self._initiator,
            prologue,
            s=dh.generate_keypair(PrivateKey(secret)),
            rs=PublicKey(remote_static) if self._initiator else None,
        )
        self._outgoing = self._incoming = None

    def write_message(self, payload):
        message = bytearray()
        self._split(self._handshake.write_message(payload, message))
        return bytes(message)

    def read_message(self, message):
        payload = bytearray()
        self._split(self._handshake.read_message(message, payload))
        return bytes(payload)

    def _split(self, ciphers):
        if ciphers is not None:
            self._outgoing, self._incoming = ciphers if self._initiator else reversed(ciphers)

    @property
    def remote_static(self):
        return self._handshake.rs.data

    @property
    def handshake_hash(self):
        return self._symmetric.get_handshake_hash()

    def encrypt(self, plaintext):
        return self._outgoing.encrypt_with_ad(b"", plaintext)

    def decrypt(self, ciphertext):
        return self._incoming.decrypt_with_ad(b"", ciphertext)

    def rekey_outgoing(self):
        rekey(self._outgoing)

    def rekey_incoming(self):
        rekey(self._incoming)


def rekey(state):
    """As section 4.2 of the Noise specification has it.

    The library's own `CipherState.rekey` takes the tag into the key, which is then too long to be
    one, and sets the nonce back to 0.
    """
    nonce = state._nonce
    state.initialize_key(state.cipher.rekey(state._key)[:32])
    state.set_nonce(nonce)
