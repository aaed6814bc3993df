"""Checks the dependency tree: which crates each choice of features brings to a user."""

import json
import subprocess
import sys
import tomllib

failures = []


def tree(*arguments):
    """The crates of a tree as {name: {version, ...}}."""
    command = ["cargo", "tree", "--locked", "--prefix", "none", "--format", "{p}", *arguments]
    crates = {}
    for line in subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines():
        if line:
            name, version = line.split()[:2]
            crates.setdefault(name, set()).add(version.removeprefix("v"))
    return crates


def check(what, holds, found=""):
    print(f"{'ok  ' if holds else 'FAIL'} {what}{'' if holds else f': {found}'}")
    if not holds:
        failures.append(what)


def absent(what, crates, *names):
    found = sorted(name for name in names if name in crates)
    check(f"{what}: no {', '.join(names)}", not found, found)


pure = tree("-e", "normal,build", "--no-default-features")
absent("pure Rust", pure, "ring", "aws-lc-rs", "aws-lc-sys", "openssl-sys", "cc", "cmake")
check("pure Rust: is the tree of this crate", "noise-pool" in pure and "snow" in pure, sorted(pure))

default = tree("-e", "normal,build")
absent("default features", default, "ring", "openssl-sys", "bincode", "serde", "loom")
check("default features: aws-lc is there", "aws-lc-sys" in default, sorted(default))

stored = tree("-e", "normal", "--no-default-features", "--features", "snapshot-codec")
check("snapshot-codec: bincode is 2.0.1", stored.get("bincode") == {"2.0.1"}, stored.get("bincode"))

everything = tree("-e", "normal,build,dev", "--all-features", "--target", "all")
absent("everything, on every target", everything, "ring", "openssl-sys")
for name in ("curve25519-dalek", "x25519-dalek", "snow", "tokio", "dashmap"):
    versions = everything.get(name, set())
    check(f"everything: exactly one {name}", len(versions) == 1, versions)

# No older toolchain can be had where this runs, so what the crates declare stands in for a build
# with the least supported Rust; clippy's `incompatible_msrv` looks after our own code.
with open("Cargo.toml", "rb") as manifest:
    ours = tomllib.load(manifest)["package"]["rust-version"]
metadata = json.loads(
    subprocess.run(
        ["cargo", "metadata", "--locked", "--all-features", "--format-version", "1"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
)
shipped = tree("-e", "normal,build", "--all-features")


def number(version):
    return tuple(int(part) for part in version.split("."))[:2]


newer = [
    f"{package['name']} {package['version']} needs {package['rust_version']}"
    for package in metadata["packages"]
    if package["version"] in shipped.get(package["name"], ())
    and package["rust_version"]
    and number(package["rust_version"]) > number(ours)
]
check(f"everything a user builds declares Rust {ours} or older", not newer, newer)

sys.exit(1 if failures else 0)
