"""A peer's half of the wire, from `docs/wire.md` and the Noise specification alone.

Each piece names the section of that page which it follows. Sockets block; a reader that waits for
longer than `PATIENCE` fails. A rule of the page that the other side breaks is a `Broken`.
"""

import secrets
import socket
import struct
import time

PATIENCE = 60.0
MINOR = 0
MAX_MESSAGE = 1 << 20

# Section 7.
DATA, FRAGMENT, PING, PONG, KEEP_ALIVE, REKEY, DRAIN, GOODBYE, VERDICT = range(1, 10)
LATER_VERSIONS = 0x80
HEADER = 3
# Section 6.
TAG = 16
MOST_PLAINTEXT = 65_519
# Section 11.
AS_ASKED, DISCONNECTED = 0, 5
# Section 8. Smaller than a frame could take, so that other records come between fragments.
PART = 30_000


class Broken(Exception):
    """The other side broke a rule of the page."""


class Ended(Exception):
    """The stream ended; how much of the next length had come."""


def require(holds, what):
    if not holds:
        raise Broken(what)


# --- the stream ------------------------------------------------------------------------------------


class Line:
    """The stream, with at most one fault on what this side writes.

    A fault is a way ("flip": the last bit, which is in a tag; "cut": the last byte is never written)
    and the name of the one piece that it befalls.
    """

    def __init__(self, sock, fault=None):
        sock.settimeout(PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.written = {}
        self._fault = fault
        self._buffer = b""

    def write(self, name, data):
        """Writes one piece behind its length. False: it was faulty, and nothing may follow."""
        data = struct.pack(">H", len(data)) + data
        self.written[name] = data
        way, befallen = self._fault or (None, None)
        if befallen != name:
            self.sock.sendall(data)
            return True
        if way == "flip":
            self.sock.sendall(data[:-1] + bytes([data[-1] ^ 1]))
        else:
            self.sock.sendall(data[:-1])
            self.sock.shutdown(socket.SHUT_WR)
        return False

    def read(self, least, most):
        """Reads one piece behind its length, which is refused before anything else is read."""
        (length,) = struct.unpack(">H", self._take(2))
        require(least <= length <= most, f"a length of {length}")
        return self._take(length)

    def silence(self):
        """Reads to the end of the stream: how many bytes came, and whether it was reset."""
        heard, self._buffer = len(self._buffer), b""
        try:
            while data := self.sock.recv(65_536):
                heard += len(data)
        except ConnectionResetError:
            return {"heard": heard, "end": "reset"}
        return {"heard": heard, "end": "end of stream"}

    def _take(self, count):
        while len(self._buffer) < count:
            data = self.sock.recv(1 << 20)
            if not data:
                raise Ended(f"{len(self._buffer)} bytes of {count}")
            self._buffer += data
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken


# --- the handshake: sections 3 and 4 ---------------------------------------------------------------


def prologue(suite, network_id):
    return b"".join(bytes([len(piece)]) + piece for piece in (b"noise-pool/1", suite.encode(), network_id))


class Us:
    """What one side says of itself in all its handshakes: sections 4 and 14."""

    def __init__(self, noise, suite, network_id, secret, payload):
        self._noise, self._suite = noise, suite
        self._prologue, self._secret = prologue(suite, network_id), secret
        self.payload = payload
        self.instance = secrets.randbits(64)
        self._stamp = secrets.randbits(63)

    def noise(self, remote_static=None):
        return self._noise(self._suite, self._prologue, self._secret, remote_static)

    def stamp(self):
        self._stamp += 1
        return self._stamp


def now():
    return int(time.time()) & 0xFFFF_FFFF


def initiate(us, line, peer):
    """The initiator's handshake and the verdict. None: a fault of ours befell it."""
    noise = us.noise(peer)
    if not line.write("message 1", noise.write_message(struct.pack(">I", now()))):
        return None
    payload = noise.read_message(line.read(65, 321))
    minor, _instance, _time, limit = struct.unpack_from(">BQII", payload)
    require(len(payload) == 17 or minor > MINOR, "bytes behind the payload of message 2")
    require(limit != 0, "max message is 0")
    hello = struct.pack(">BQQIH", MINOR, us.instance, us.stamp(), MAX_MESSAGE, len(us.payload))
    if not line.write("message 3", noise.write_message(hello + us.payload)):
        return None
    session = Session(line, noise, limit)
    session.read_verdict()
    return session


def respond(us, line):
    """The responder's handshake and its accepting verdict. None: a fault of ours befell it."""
    noise = us.noise()
    (sent,) = struct.unpack(">I", noise.read_message(line.read(52, 52)))
    skew = (sent - now() + 2**31) % 2**32 - 2**31
    require(abs(skew) <= 60, f"message 1 is {skew} s off")
    if not line.write("message 2", noise.write_message(struct.pack(">BQII", MINOR, us.instance, now(), MAX_MESSAGE))):
        return None
    payload = noise.read_message(line.read(87, 16_727))
    minor, _instance, _stamp, limit, length = struct.unpack_from(">BQQIH", payload)
    own = payload[23 : 23 + length]
    require(limit != 0, "max message is 0")
    require(length <= 16_384 and len(own) == length, "the application payload's length")
    require(len(payload) == 23 + length or minor > MINOR, "bytes behind the payload of message 3")
    session = Session(line, noise, limit)
    session.peer_payload = own
    host, port = line.sock.getpeername()
    observed = f"{host}:{port}".encode()
    verdict = struct.pack(">BQB", 0, us.stamp(), len(observed)) + observed + us.payload
    return session if session.write([(VERDICT, verdict)], "verdict") else None


# --- the session: sections 5 to 11 -----------------------------------------------------------------


class Session:
    """Frames and records after the handshake; what a message means is the caller's business."""

    def __init__(self, line, noise, peer_limit):
        self._line, self._noise = line, noise
        self._limit = min(MAX_MESSAGE, peer_limit)
        self.peer = noise.remote_static
        self.handshake_hash = noise.handshake_hash
        self.peer_payload = self.observed = b""
        self.rekey_after = None
        self.sent = self.received = 0
        self.rekeys_out = self.rekeys_in = 0
        self.pings_answered = self.pongs = self.fragments = 0
        self.largest_frame = 0
        self.goodbye = None  # the peer's: (reason, received)
        self.said_drain = self.heard_drain = self.said_goodbye = False
        self._under_key = 0
        self._open_ping = None
        self._parts, self._remaining = b"", 0
        self._waiting = []  # what came behind the verdict in its frame

    # Writing.

    def write(self, records, name="frame"):
        """Writes records, as many into a frame as fit. False: a fault of ours befell them."""
        plaintext = b""
        for kind, body in records:
            record = struct.pack(">BH", kind, len(body)) + body
            # Room is left for a rekey.
            if plaintext and len(plaintext) + len(record) > MOST_PLAINTEXT - HEADER:
                if not self._write_frame(plaintext, name):
                    return False
                plaintext = b""
            plaintext += record
        return not plaintext or self._write_frame(plaintext, name)

    def _write_frame(self, plaintext, name):
        due = self.rekey_after is not None and self._under_key >= self.rekey_after
        # Section 10: the last record of its frame, and only while the direction is open.
        rekey = due and not self.said_drain and len(plaintext) <= MOST_PLAINTEXT - HEADER
        if rekey:
            plaintext += struct.pack(">BH", REKEY, 0)
        ciphertext = self._noise.encrypt(plaintext)
        self._under_key += 2 + len(ciphertext)
        if rekey:
            self._noise.rekey_outgoing()
            self._under_key = 0
            self.rekeys_out += 1
        return self._line.write(name, ciphertext)

    def message(self, body):
        """The records of one message: section 8."""
        require(len(body) <= self._limit, "a message over the limit")
        self.sent += 1
        if len(body) <= MOST_PLAINTEXT - HEADER:
            return [(DATA, body)]
        records = []
        for start in range(0, len(body), PART):
            part = body[start : start + PART]
            remaining = len(body) - start - len(part)
            records.append((FRAGMENT, struct.pack(">I", remaining) + part))
            # Both may come between fragments; the second must be skipped by who does not know it.
            records += [(KEEP_ALIVE, b""), (LATER_VERSIONS + 7, b"of a later version")]
        return records

    def ping(self):
        """A ping, unless one is open or the account may be empty: section 9."""
        if self._open_ping is not None or self.said_drain:
            return []
        self._open_ping = secrets.token_bytes(8)
        return [(PING, self._open_ping)]

    @property
    def awaits_pong(self):
        return self._open_ping is not None

    def drain(self):
        """Says that no more messages will come, once."""
        if not self.said_drain:
            self.write([(DRAIN, b"")])
            self.said_drain = True

    def say_goodbye(self, reason):
        """Section 11: after both drains; then half-closes, and reads to the end of the stream."""
        require(self.said_drain and self.heard_drain, "a goodbye of ours before its time")
        self.write([(GOODBYE, struct.pack(">BQ", reason, self.received))])
        self.said_goodbye = True
        self._line.sock.shutdown(socket.SHUT_WR)

    # Reading.

    def read_verdict(self):
        (kind, body), *more = self._read_records()
        require(kind == VERDICT, f"the first record is of type {kind}")
        require(body[:1] == b"\0", f"rejected: {body.hex()}")
        _stamp, length = struct.unpack_from(">QB", body, 1)
        require(len(body) >= 10 + length, "the observed address's length")
        self.observed, self.peer_payload = body[10 : 10 + length], body[10 + length :]
        self._waiting = more

    def read(self):
        """The next frame: (messages, records that answer). None: the end of the stream, in order."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            try:
                waiting = self._read_records()
            except Ended as ended:
                require(self.goodbye is not None and str(ended).startswith("0 "), f"truncation: {ended}")
                return None
        messages, answers = [], []
        for kind, body in waiting:
            self._take(kind, body, messages, answers)
        return messages, answers

    def _read_records(self):
        ciphertext = self._line.read(17, 65_535)
        self.largest_frame = max(self.largest_frame, len(ciphertext))
        plaintext = self._noise.decrypt(ciphertext)
        records, at = [], 0
        while at < len(plaintext):
            require(at + HEADER <= len(plaintext), "a record's header is cut")
            kind, length = struct.unpack_from(">BH", plaintext, at)
            at += HEADER + length
            require(at <= len(plaintext), "a record goes past its frame")
            records.append((kind, plaintext[at - length : at]))
        for kind, _ in records[:-1]:
            require(kind != REKEY, "something behind a rekey")
        if records[-1][0] == REKEY:
            self._noise.rekey_incoming()
            self.rekeys_in += 1
        return records

    def _take(self, kind, body, messages, answers):
        require(self.goodbye is None, f"record {kind} behind a goodbye")
        require(not self.heard_drain or kind == GOODBYE, f"record {kind} behind a drain")
        inside = self._remaining > 0
        if kind == DATA:
            require(not inside, "data inside a message")
            messages.append(self._received(body))
        elif kind == FRAGMENT:
            require(len(body) > 4, "an empty fragment")
            (remaining,) = struct.unpack_from(">I", body)
            part = body[4:]
            whole = len(part) + remaining
            require(whole == self._remaining if inside else whole <= MAX_MESSAGE, "a fragment that does not fit")
            self.fragments += 1
            self._parts += part
            self._remaining = remaining
            if remaining == 0:
                messages.append(self._received(self._parts))
                self._parts = b""
        elif kind == PING:
            require(len(body) == 8, "a ping's length")
            if not self.said_drain:
                self.pings_answered += 1
                answers.append((PONG, body))
        elif kind == PONG:
            require(self._open_ping is not None and body == self._open_ping, "a pong to no ping")
            self._open_ping = None
            self.pongs += 1
        elif kind in (KEEP_ALIVE, REKEY):
            require(not body, "a body where none may be")
        elif kind == DRAIN:
            require(not body and not inside, "a drain inside a message")
            self.heard_drain = True
            self._open_ping = None
        elif kind == GOODBYE:
            require(self.said_drain and self.heard_drain, "a goodbye before its time")
            require(len(body) == 9, "a goodbye's length")
            self.goodbye = struct.unpack(">BQ", body)
        else:
            require(kind >= LATER_VERSIONS, f"record {kind} is not known")

    def _received(self, body):
        require(len(body) <= MAX_MESSAGE, "a message over the limit")
        self.received += 1
        return body
