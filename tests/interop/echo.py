"""The application on top of wire.py: sends every message back, and says what it has seen.

A task is one JSON object; so is the outcome, on a line of its own on standard output.
"""

import json
import sys

import wire
from cryptography.exceptions import InvalidTag
from dissononce.exceptions.decrypt import DecryptFailedException

# Few enough for any account of pings: section 9.
MOST_PINGS = 5


def task():
    """The task, and this side by the library that it names."""
    task = json.loads(sys.argv[1])
    if task["library"] == "noiseprotocol":
        from with_noiseprotocol import Noise
    else:
        from with_dissononce import Noise
    secret, network_id = bytes.fromhex(task["secret"]), bytes.fromhex(task["network_id"])
    us = wire.Us(Noise, task["suite"], network_id, secret, b"python's own")
    return task, us


def say(outcome):
    print(json.dumps(outcome), flush=True)


def fault(task):
    return tuple(task["fault"]) if task.get("fault") else None


def run(task, line, handshake):
    """One whole session, or what is left of it when a fault was asked for."""
    try:
        session = handshake()
        faulty = session is None
    except wire.Ended:
        say({"refused": "end of stream", **line.silence()})
        return
    except (InvalidTag, DecryptFailedException) as error:
        # Section 4: nothing is said to a stranger. Section 12: nor to a peer that breaks the rules.
        line.sock.close()
        say({"refused": type(error).__name__})
        return
    if not faulty and (fault(task) or ("", ""))[1] == "frame":
        faulty = not session.write(session.message(b"first"))
    if faulty:
        say(line.silence())
    else:
        say(echo(session, task.get("drain_after"), task.get("rekey_after"), task.get("parting")))
    line.sock.close()


def echo(session, drain_after, rekey_after, parting):
    """Echoes until both sides have drained. The drain is ours after so many messages, if it is; before
    it we wait for a line on standard input and then send so many parting messages, if we are to."""
    session.rekey_after = rekey_after
    ours = drain_after is not None
    pings = 0
    while (read := session.read()) is not None:
        messages, records = read
        for message in messages:
            if not session.said_drain and not (ours and session.sent >= drain_after):
                records += session.message(message)
        if messages and pings < MOST_PINGS and not session.heard_drain:
            ping = session.ping()
            pings += len(ping)
            records = ping + records
        if not session.said_drain:
            session.write(records)
            done = ours and session.sent >= drain_after and not session.awaits_pong
            if done and parting:
                # Not read from here to our drain: the other side's may have come meanwhile.
                say({"ready": True})
                sys.stdin.readline()
                session.write([record for n in range(parting) for record in session.message(b"%d" % n)])
            if done or session.heard_drain:
                session.drain()
        if session.heard_drain and not session.said_goodbye:
            session.say_goodbye(wire.DISCONNECTED if ours else wire.AS_ASKED)
    return {
        "peer": session.peer.hex(),
        "handshake_hash": session.handshake_hash.hex(),
        "peer_payload": session.peer_payload.decode(),
        "observed": session.observed.decode(),
        "sent": session.sent,
        "received": session.received,
        "fragments": session.fragments,
        "largest_frame": session.largest_frame,
        "rekeys_in": session.rekeys_in,
        "rekeys_out": session.rekeys_out,
        "pings_answered": session.pings_answered,
        "pongs": session.pongs,
        "goodbye": session.goodbye,
    }
