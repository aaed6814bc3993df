#!/usr/bin/env python3
"""A link between two network namespaces, with a rate, a delay, a loss, a queue and outages.

    link.py A B [--rate KBIT] [--delay MS] [--loss PERCENT] [--queue KB] [--cut FROM:TO]... [--seed N]

Makes the namespaces A (10.99.0.1) and B (10.99.0.2), carries packets between their TUN devices, prints
"up", and removes the namespaces when its standard input ends. Rate, delay (one way), loss and queue are
those of each direction; rate 0 is no bound. --cut 20:40 drops everything between second 20 and second
40. It needs root, Linux and /dev/net/tun, and touches nothing outside its namespaces.
"""

import argparse
import collections
import fcntl
import os
import random
import select
import struct
import subprocess
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


def run(*words):
    subprocess.run(words, check=True)


def open_tun(name):
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    return tun


class Direction:
    """Packets one way: dropped by chance or by a full queue, then sent at the rate, then delayed."""

    def __init__(self, out, options, chance):
        self.out, self.options, self.chance = out, options, chance
        self.free_at, self.queued = 0.0, 0
        # When each packet will have been sent, and its length; when each arrives, and the packet.
        self.waiting, self.flying = collections.deque(), collections.deque()

    def take(self, packet, now, is_cut):
        options = self.options
        while self.waiting and self.waiting[0][0] <= now:
            self.queued -= self.waiting.popleft()[1]
        is_lost = is_cut or self.chance.random() * 100 < options.loss
        if is_lost or self.queued + len(packet) > options.queue * 1024:
            return
        seconds = len(packet) * 8 / (options.rate * 1000) if options.rate else 0
        self.free_at = max(self.free_at, now) + seconds
        self.queued += len(packet)
        self.waiting.append((self.free_at, len(packet)))
        self.flying.append((self.free_at + options.delay / 1000, packet))

    def give(self, now):
        while self.flying and self.flying[0][0] <= now:
            packet = self.flying.popleft()[1]
            try:
                os.write(self.out, packet)
            except OSError:
                # The namespace is going; whoever is in it sees that.
                pass


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a")
    parser.add_argument("b")
    for name, default in (("rate", 0), ("delay", 0), ("loss", 0), ("queue", 256)):
        parser.add_argument("--" + name, type=float, default=default)
    parser.add_argument("--cut", action="append", default=[])
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def carry(tuns, directions, cuts):
    """Carries packets until standard input ends."""
    began = time.monotonic()
    while True:
        now = time.monotonic()
        for direction in directions.values():
            direction.give(now)
        due = [d.flying[0][0] for d in directions.values() if d.flying]
        wait = min([0.5] + [max(0.0, at - now) for at in due])
        for ready in select.select([*tuns, 0], [], [], wait)[0]:
            if ready == 0:
                if not os.read(0, 4096):
                    return
                continue
            now = time.monotonic()
            is_cut = any(begin <= now - began < end for begin, end in cuts)
            for _ in range(64):
                try:
                    packet = os.read(ready, 65536)
                except BlockingIOError:
                    break
                directions[ready].take(packet, now, is_cut)


def main():
    chosen = options()
    cuts = [tuple(float(x) for x in cut.split(":")) for cut in chosen.cut]
    tuns, spaces, directions = [], [], {}
    try:
        for space, address in ((chosen.a, "10.99.0.1"), (chosen.b, "10.99.0.2")):
            device = "l" + space[-12:]
            tuns.append(open_tun(device))
            run("ip", "netns", "add", space)
            spaces.append(space)
            run("ip", "link", "set", device, "netns", space)
            run("ip", "-n", space, "link", "set", "lo", "up")
            run("ip", "-n", space, "addr", "add", address + "/24", "dev", device)
            run("ip", "-n", space, "link", "set", device, "mtu", "1500", "up")
        chance = random.Random(chosen.seed)
        for ours, theirs in (tuns, tuns[::-1]):
            directions[ours] = Direction(theirs, chosen, chance)
        print("up", flush=True)
        carry(tuns, directions, cuts)
    finally:
        for space in spaces:
            subprocess.run(["ip", "netns", "del", space], stderr=subprocess.DEVNULL, check=False)


main()
