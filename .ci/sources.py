"""Checks what neither compiler nor clippy checks: the house rules that a text search can hold."""

import re
import subprocess
import sys
from pathlib import Path

failures = []


def fail(path, line, what):
    failures.append(f"{path}:{line}: {what}")


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def search(path, text, pattern, what, flags=0):
    for match in re.finditer(pattern, text, flags):
        fail(path, line_of(text, match.start()), f"{what}: {match.group(0).strip()[:60]!r}")


def blank(match):
    """The same number of characters and lines, with nothing in them."""
    return re.sub(r"[^\n]", " ", match.group(0))


def without_comments(text):
    return re.sub(r'//[^\n]*', blank, re.sub(r'"(?:\\.|[^"\\])*"', blank, text, flags=re.S))


tracked = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
    check=True,
    stdout=subprocess.PIPE,
    text=True,
).stdout.splitlines()
paths = [Path(name) for name in tracked if Path(name).is_file()]
texts = {}
for path in paths:
    if path.parts[:2] == ("fuzz", "corpus"):
        continue  # test data, though some of it is text
    try:
        texts[path] = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        continue  # test data

rust = {path: text for path, text in texts.items() if path.suffix == ".rs"}
library = {path: text for path, text in rust.items() if path.parts[0] == "src"}

# --- Rust ----------------------------------------------------------------------------------------

for path, text in rust.items():
    code = without_comments(text)
    opens = text.startswith("//!") or text.startswith("#![doc = include_str!")
    if not opens and (path in library or not text.startswith("#![")):
        fail(path, 1, "does not open with what it owns (`//!`)")
    # A global allocator cannot be written without, nor can a thread's slices be asked for: the bench
    # counts allocations, and has threads that stand for other machines.
    if path not in (Path("bench/src/alloc.rs"), Path("bench/src/turns.rs")):
        search(path, code, r"\bunsafe\b", "unsafe code")
    search(path, code, r"\b(?:todo|unimplemented)!", "unfinished code")
    search(path, code, r"\bunbounded(?:_channel)?\b", "an unbounded channel")
    for match in re.finditer(r"#!?\[(?:allow|expect)\((.*?)\)\]", code, re.S):
        if "reason" not in match.group(1):
            fail(path, line_of(code, match.start()), "a lint is switched off without a reason")
    for match in re.finditer(r"\bselect!\s*\{\s*(\w+)", code):
        if match.group(1) != "biased":
            fail(path, line_of(code, match.start()), "`select!` is not `biased`: simulations would not repeat")

for path, text in library.items():
    code = without_comments(text)
    if path.parts[:3] != ("src", "pool", "slots"):
        search(path, code, r"\b(?:dashmap|DashMap|crossbeam_utils|ShardedLock)\b", "only pool/slots may name the map")
    layer = path.parts[1] if len(path.parts) > 2 else path.stem
    if layer == "proto":
        search(path, code, r"\b(?:tokio|dashmap|crossbeam_utils|getrandom|SystemTime)\b", "proto/ is pure")

lib = texts.get(Path("src/lib.rs"), "")
if "forbid(unsafe_code)" not in lib:
    fail("src/lib.rs", 1, "does not forbid unsafe code")

# --- every text file -----------------------------------------------------------------------------

# Put together here, so that this file does not find itself.
unfinished = r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b"
machine = r"(?<![\w.~}])/(?:ro" + r"ot|ho" + r"me|wo" + r"rk|tm" + r"p|Us" + r"ers)/\w"
for path, text in texts.items():
    if path.name == "Cargo.lock":
        continue
    search(path, text, unfinished, "unfinished")
    search(path, text, machine, "a path of one machine")
    search(path, text, r"[ \t]+$", "space at the end of a line", re.M)
    if text and not text.endswith("\n"):
        fail(path, line_of(text, len(text)), "no newline at the end")

# --- documents -----------------------------------------------------------------------------------

for name in ("README.md", "SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE-MIT", "LICENSE-APACHE", "docs/wire.md"):
    if Path(name) not in texts:
        fail(name, 1, "is missing")

readme = texts.get(Path("README.md"), "")
for command in ("cargo run --release --example overlay", "cargo test"):
    if not re.search(rf"^{re.escape(command)}$", readme, re.M):
        fail("README.md", 1, f"does not give the command `{command}` on a line of its own")

for path, text in texts.items():
    if path.suffix == ".md":
        # `[text](target#part)` and `[text]: target#part`.
        for match in re.finditer(r"\](?:\(|: )([^)#\s]+)(?:#[^)\s]*)?(?:\)|$)", text, re.M):
            target = match.group(1)
            if "://" not in target and not (path.parent / target).exists():
                fail(path, line_of(text, match.start()), f"a link to nothing: {target}")

# The packed README has no files beside it: it links to the pages that docs.rs shows.
for match in re.finditer(r"https://docs\.rs/noise-pool/latest/noise_pool/docs/(\w+)/index\.html", readme):
    if f"pub mod {match.group(1)} {{}}" not in lib:
        fail("README.md", line_of(readme, match.start()), f"a link to no page of the documentation: {match.group(1)}")

for failure in failures:
    print(f"FAIL {failure}")
print(f"{len(rust)} Rust files, {len(texts)} text files: {len(failures)} findings")
sys.exit(1 if failures else 0)
