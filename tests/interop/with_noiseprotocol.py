"""The Noise half by `noiseprotocol`: what wire.py needs of a library, and nothing of the wire."""

from noise.connection import Keypair, NoiseConnection


class Noise:
    """One side of one handshake, and then of one session."""

    def __init__(self, suite, prologue, secret, remote_static=None):
        self._connection = NoiseConnection.from_name(suite.encode())
        if remote_static is None:
            self._connection.set_as_responder()
        else:
            self._connection.set_as_initiator()
            self._connection.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, remote_static)
        self._connection.set_prologue(prologue)
        self._connection.set_keypair_from_private_bytes(Keypair.STATIC, secret)
        self._connection.start_handshake()
        # The library forgets the state with the last message; the keys in it are still needed.
        self._state = self._connection.noise_protocol.handshake_state

    def write_message(self, payload):
        return bytes(self._connection.write_message(payload))

    def read_message(self, message):
        return bytes(self._connection.read_message(message))

    @property
    def remote_static(self):
        return self._state.rs.public_bytes

    @property
    def handshake_hash(self):
        return self._connection.get_handshake_hash()

    def encrypt(self, plaintext):
        return self._connection.encrypt(plaintext)

    def decrypt(self, ciphertext):
        return self._connection.decrypt(ciphertext)

    def rekey_outgoing(self):
        self._connection.rekey_outbound_cipher()

    def rekey_incoming(self):
        self._connection.rekey_inbound_cipher()
