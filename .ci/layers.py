"""Checks the house: imports between the files of `src/` point downwards, and never in a circle.

    layers.py [--root DIR]            the self-test, then the check
    layers.py [--root DIR] --counts   sizes: lines, files, functions, `pub(crate)`
    layers.py --self-test             the self-test alone

Only product code counts: what is compiled for tests, fuzzing, loom or doctests alone is left out, and
so is whatever only such code reaches. An import leads to the file that defines the item: re-exports are
followed, and neither they nor `mod` declarations are imports. It reads paths; a method call is none.
"""

import argparse
import re
import statistics
import sys
import tempfile
from collections import defaultdict, deque
from dataclasses import dataclass, field
from pathlib import Path

# What each layer may import from, besides itself. `lib.rs` may import from all, and nothing from it.
BELOW = {
    "base": set(),
    "proto": {"base"},
    "session": {"proto", "base"},
    "transport": {"proto", "base"},
    "pool": {"session", "transport", "proto", "base"},
}
# Options under which product code is not compiled.
PROOF = {"test", "fuzzing", "doctest", "noise_pool_loom", "noise_pool_plain_wire"}

# --- reading a file ------------------------------------------------------------------------------

LITERAL = re.compile(
    r'//[^\n]*'
    r'|/\*'
    r'|\bb?r(?P<hashes>#*)".*?"(?P=hashes)'
    r'|\bb?c?"(?:\\.|[^"\\])*"|"(?:\\.|[^"\\])*"'
    r"|'(?:\\[^\n]+?|[^\\'\n])'",
    re.S,
)
TOKEN = re.compile(r"\$crate\b|(?:r#)?[A-Za-z_]\w*|::|->|=>|#!?\[|[^\s\w]|\d\w*")
OPENING, CLOSING = {"{": "}", "(": ")", "[": "]", "#[": "]", "#![": "]"}, {"}", ")", "]"}
ITEMS = {"use", "mod", "fn", "struct", "enum", "union", "trait", "impl", "type", "const", "static",
         "extern", "async", "unsafe", "macro_rules", "let"}
DEFINING = {"fn", "struct", "enum", "union", "trait", "type", "const", "static"}


def blank(text):
    return re.sub(r"[^\n]", " ", text)


def without_literals(text):
    """The text with comments and literals blanked, every character where it was."""
    parts, at = [], 0
    while match := LITERAL.search(text, at):
        end = match.end()
        if match.group() == "/*":
            depth = 1
            while depth and (mark := re.compile(r"/\*|\*/").search(text, end)):
                depth += 1 if mark.group() == "/*" else -1
                end = mark.end()
        parts += [text[at:match.start()], blank(text[match.start():end])]
        at = end
    return "".join(parts) + text[at:]


@dataclass
class Token:
    text: str
    start: int
    end: int
    line: int


def tokens_of(code):
    found, line, at = [], 1, 0
    for match in TOKEN.finditer(code):
        line += code.count("\n", at, match.start())
        at = match.start()
        found.append(Token(match.group().removeprefix("r#"), match.start(), match.end(), line))
    return found


def closing(tokens, at):
    """Where the bracket that opens at `at` is closed."""
    depth = 0
    for here in range(at, len(tokens)):
        if tokens[here].text in OPENING:
            depth += 1
        elif tokens[here].text in CLOSING:
            depth -= 1
            if depth == 0:
                return here
    return len(tokens) - 1


def holds(tokens):
    """Whether a `cfg` predicate can hold for product code: True, False, or None if it depends."""
    name = tokens[0].text
    if len(tokens) < 2 or tokens[1].text != "(":
        return False if name in PROOF else None
    parts, part, depth = [], [], 0
    for token in tokens[2:-1]:
        depth += (token.text in OPENING) - (token.text in CLOSING)
        if token.text == "," and depth == 0:
            parts.append(part)
            part = []
        else:
            part.append(token)
    values = [holds(part) for part in [*parts, part] if part]
    if name == "not":
        return None if values[0] is None else not values[0]
    decisive = name == "any"
    if decisive in values:
        return decisive
    return None if None in values else not decisive


def end_of_item(tokens, at):
    """The last token of the item, field, variant, arm or statement that begins at `at`."""
    head = at
    while tokens[head].text == "pub":
        head = closing(tokens, head + 1) + 1 if tokens[head + 1].text == "(" else head + 1
    item = tokens[head].text in ITEMS
    ends_in_block = item and tokens[head].text not in ("use", "type", "const", "static", "let")
    if tokens[head].text == "const" and tokens[head + 1].text in ("fn", "unsafe", "async"):
        ends_in_block = True
    here, angles = head, 0
    while here < len(tokens):
        text = tokens[here].text
        if text in CLOSING:
            return here - 1
        if text == ";" or (text == "," and not item and angles <= 0):
            return here
        if text in OPENING:
            block = text == "{" and (ends_in_block or here == head or tokens[here - 1].text in ("=>", "!"))
            here = closing(tokens, here)
            if block:
                return here + 1 if here + 1 < len(tokens) and tokens[here + 1].text == "," else here
        angles += (text == "<") - (text == ">")
        here += 1
    return len(tokens) - 1


def product_code(text):
    """The text without comments and literals, and the same without what only proof compiles."""
    code = without_literals(text)
    tokens = tokens_of(code)
    product, at = code, 0
    while at < len(tokens):
        token = tokens[at]
        if token.text not in ("#[", "#!["):
            at += 1
            continue
        end = closing(tokens, at)
        inside = tokens[at + 1:end]
        if len(inside) > 2 and inside[0].text == "cfg" and holds(inside[2:-1]) is False:
            if token.text == "#![":
                return code, blank(code)
            begin = at
            # Attributes before it belong to the item too.
            while begin and tokens[begin - 1].text == "]":
                earlier = begin - 1
                while tokens[earlier].text != "#[" and earlier:
                    earlier -= 1
                if closing(tokens, earlier) != begin - 1:
                    break
                begin = earlier
            last = end + 1
            while last < len(tokens) and tokens[last].text == "#[":
                last = closing(tokens, last) + 1
            end = end_of_item(tokens, last)
            start, stop = tokens[begin].start, tokens[end].end
            product = product[:start] + blank(product[start:stop]) + product[stop:]
        at = end + 1
    return code, product


# --- modules -------------------------------------------------------------------------------------


@dataclass
class Use:
    name: str | None  # None: all names
    path: list[str]
    exported: bool
    line: int


@dataclass(eq=False)
class Module:
    file: Path
    parent: "Module | None"
    folder: Path  # where its children's files are
    children: dict = field(default_factory=dict)
    items: set = field(default_factory=set)
    uses: list = field(default_factory=list)
    paths: list = field(default_factory=list)  # (segments, line), outside `use`
    words: dict = field(default_factory=dict)  # each word and its first line, outside `use`


def use_tree(tokens, prefix):
    """The (name, path) pairs of a use tree."""
    path, at = list(prefix), 0
    while at < len(tokens):
        text = tokens[at].text
        if text == "{":
            part, depth = [], 0
            for token in tokens[at + 1:]:
                if depth == 0 and token.text in (",", "}"):
                    yield from use_tree(part, path) if part else ()
                    part = []
                    if token.text == "}":
                        return
                    continue
                depth += (token.text == "{") - (token.text == "}")
                part.append(token)
        elif text == "*":
            yield None, path
            return
        elif text == "as":
            yield tokens[at + 1].text, path
            return
        elif text not in ("::", "self") or (text == "self" and not path):
            path.append("crate" if text == "$crate" else text)
        at += 1
    yield path[-1], path


class Tree:
    """The product's modules, from `src/lib.rs` on."""

    def __init__(self, root):
        self.src = root / "src"
        self.codes = {}  # file: (whole text, code, product code)
        self.modules = []
        self.root = self.open(self.src / "lib.rs", None, self.src)

    def open(self, file, parent, folder):
        text = file.read_text(encoding="utf-8")
        code, product = product_code(text)
        self.codes[file] = (text, code, product)
        module = Module(file, parent, folder)
        self.read(module, tokens_of(product), text)
        return module

    def read(self, module, tokens, text):
        self.modules.append(module)
        at, depth, path_attribute = 0, 0, None
        while at < len(tokens):
            word, line = tokens[at].text, tokens[at].line
            following = tokens[at + 1].text if at + 1 < len(tokens) else ""
            before = tokens[at - 1].text if at else ""
            if word in ("#[", "#!["):
                end = closing(tokens, at)
                if following == "path":
                    quoted = text[tokens[at].start:tokens[end].end]
                    path_attribute = re.search(r'"(.*)"', quoted).group(1)
                self.mention(module, tokens[at + 1:end])
                at = end + 1
                continue
            if word == "mod" and at + 2 < len(tokens) and tokens[at + 2].text in ("{", ";"):
                at = self.submodule(module, tokens, at, text, path_attribute)
                path_attribute = None
                continue
            if word == "use" and before != "+" and following != "<":
                end = next(n for n in range(at, len(tokens)) if tokens[n].text == ";")
                scope = at - 1
                while scope > 0 and tokens[scope].text in ("(", ")", "::", "in", "crate", "super", "self"):
                    scope -= 1
                exported = scope >= 0 and tokens[scope].text == "pub"
                for name, path in use_tree(tokens[at + 1:end], []):
                    module.uses.append(Use(name, path, exported, line))
                at = end + 1
                continue
            if depth == 0 and word in DEFINING and re.fullmatch(r"[A-Za-z]\w*|_\w+", following):
                if following not in ("fn", "unsafe", "async", "extern", "mut"):
                    module.items.add(following)
            if depth == 0 and word == "macro_rules":
                module.items.add(tokens[at + 2].text)
            depth += (word == "{") - (word == "}")
            at = self.mention_at(module, tokens, at)

    def submodule(self, module, tokens, at, text, path_attribute):
        name = tokens[at + 1].text
        folder = module.folder / name
        if tokens[at + 2].text == "{":
            end = closing(tokens, at + 2)
            child = Module(module.file, module, folder)
            module.children[name] = child
            self.read(child, tokens[at + 3:end], text)
            return end + 1
        if path_attribute is not None:
            file = (module.file.parent / path_attribute).resolve()
            folder = file.parent
        else:
            file = next(f for f in (folder.with_suffix(".rs"), folder / "mod.rs") if f.is_file())
        module.children[name] = self.open(file, module, folder)
        return at + 3

    def mention(self, module, tokens):
        at = 0
        while at < len(tokens):
            at = self.mention_at(module, tokens, at)

    @staticmethod
    def mention_at(module, tokens, at):
        """Notes the path or word that begins at `at`; where to go on."""
        word, line = tokens[at].text, tokens[at].line
        before = tokens[at - 1].text if at else ""
        if not re.match(r"\$crate|[A-Za-z_]", word) or before in ("::", "."):
            return at + 1
        segments, here = ["crate" if word == "$crate" else word], at + 1
        while here + 1 < len(tokens) and tokens[here].text == "::" and re.match(r"[A-Za-z_]", tokens[here + 1].text):
            segments.append(tokens[here + 1].text)
            here += 2
        if before == "in" and at > 2 and tokens[at - 3].text == "pub":
            return here  # how far an item is visible
        module.words.setdefault(segments[0], line)
        if len(segments) > 1:
            module.paths.append((segments, line))
        return here

    # --- where a path leads ----------------------------------------------------------------------

    def resolve(self, module, path, seen=frozenset()):
        """What a path leads to: pairs of a module and whether the path ends at an item in it."""
        first, rest = path[0], list(path[1:])
        if first == "crate":
            found = {(self.root, False)}
        elif first in ("self", "super"):
            while first == "super" or (rest and rest[0] == "super"):
                module, first = module.parent or module, ""
                if rest and rest[0] == "super":
                    first = rest.pop(0)
            found = {(module, False)}
        else:
            found = self.lookup(module, first, seen)
        for name in rest:
            further = set()
            for target, is_item in found:
                # A name that is not found in a module of ours was made by a macro there.
                further |= {(target, True)} if is_item else self.lookup(target, name, seen) or {(target, True)}
            found = further
        return found

    def lookup(self, module, name, seen=frozenset()):
        if (module, name) in seen:
            return set()
        seen = seen | {(module, name)}
        found = set()
        if name in module.children:
            found.add((module.children[name], False))
        if name in module.items:
            found.add((module, True))
        for use in module.uses:
            if use.name == name:
                found |= self.resolve(module, use.path, seen)
        if not found and not any(use.name == name for use in module.uses):
            for use in module.uses:
                if use.name is None:
                    for target, is_item in self.resolve(module, use.path, seen):
                        found |= set() if is_item else self.lookup(target, name, seen)
        return found

    def imports(self):
        """All imports: (file, line, what is imported, its file, whether it is a mere re-export)."""
        for module in self.modules:
            used = []
            for use in module.uses:
                if use.name is not None:
                    used.append((use.path, use.line, use.exported and use.name not in module.words))
                    continue
                for target, is_item in self.resolve(module, use.path):
                    if is_item:
                        used.append((use.path, use.line, use.exported))
                        continue
                    for word in module.words:
                        if word not in module.items and self.lookup(target, word):
                            used.append(([*use.path, word], use.line, False))
            used += [(path, line, False) for path, line in module.paths]
            for path, line, mere in used:
                for target, is_item in self.resolve(module, path):
                    if is_item and target.file != module.file:
                        yield module.file, line, "::".join(path), target.file, mere


# --- the check -----------------------------------------------------------------------------------


def layer(src, file):
    inside = file.relative_to(src) if file.is_relative_to(src) else file
    return inside.parts[0] if len(inside.parts) > 1 else inside.name


def components(graph):
    """Sets of files of which each leads to each other (Tarjan)."""
    index, low, stack, found = {}, {}, [], []
    for start in sorted(graph):
        work = [(start, iter(sorted(graph[start])))] if start not in index else []
        if work:
            index[start] = low[start] = len(index)
            stack.append(start)
        while work:
            node, edges = work[-1]
            for other in edges:
                if other not in index:
                    index[other] = low[other] = len(index)
                    stack.append(other)
                    work.append((other, iter(sorted(graph.get(other, ())))))
                    break
                if other in stack:
                    low[node] = min(low[node], index[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    at = stack.index(node)
                    if len(stack) - at > 1:
                        found.append(set(stack[at:]))
                    del stack[at:]
    return found


def shortest_circle(graph, files):
    best = None
    for start in sorted(files):
        came_from, queue = {start: None}, deque([start])
        while queue:
            node = queue.popleft()
            if start in graph[node]:
                circle = [start]
                while node != start:
                    circle.insert(1, node)
                    node = came_from[node]
                if best is None or len(circle) < len(best):
                    best = circle
                break
            for other in sorted(graph[node] & files - came_from.keys()):
                came_from[other] = node
                queue.append(other)
    return best


def check(root):
    """What is wrong, a line each, and how much was looked at."""
    tree = Tree(root)
    src, failures = tree.src, []

    def name(file):
        return file.relative_to(root) if file.is_relative_to(root) else file

    graph, because = defaultdict(set), {}
    imports = sorted(set(tree.imports()), key=str)
    for file, line, what, target, mere in imports:
        if not mere:
            graph[file].add(target)
            because.setdefault((file, target), (line, what))
        ours, theirs = layer(src, file), layer(src, target)
        if ours not in ("lib.rs", theirs) and theirs not in BELOW.get(ours, ()):
            failures.append(f"{name(file)}:{line}: {ours} must not import from {theirs}: {what} ({name(target)})")
    for file in sorted(tree.codes):
        if layer(src, file) not in BELOW and file != src / "lib.rs":
            failures.append(f"{name(file)}:1: is in no layer")
    for files in components(graph):
        circle = shortest_circle(graph, files)
        steps = "".join(
            f"\n       {name(file)}:{because[file, after][0]} imports {because[file, after][1]} ({name(after)})"
            for file, after in zip(circle, [*circle[1:], circle[0]])
        )
        among = f", the shortest of {len(files)} files ({', '.join(str(name(f)) for f in sorted(files))})"
        failures.append(f"a circle of {len(circle)} files{among if len(files) > len(circle) else ''}:{steps}")
    edges = sum(map(len, graph.values()))
    return failures, f"{len(tree.codes)} product files, {edges} imports between them"


# --- sizes ---------------------------------------------------------------------------------------


def functions(product):
    """The name and the lines of each function that has a body."""
    tokens = tokens_of(product)
    for at, token in enumerate(tokens):
        if token.text == "fn" and at + 1 < len(tokens) and re.match(r"[A-Za-z_]", tokens[at + 1].text):
            here = at + 1
            while tokens[here].text not in (";", "{"):
                here = closing(tokens, here) + 1 if tokens[here].text in OPENING else here + 1
            if tokens[here].text == "{":
                yield tokens[at + 1].text, tokens[closing(tokens, here)].line - token.line + 1


def counts(root):
    tree = Tree(root)
    rows, lengths, crate_wide = defaultdict(lambda: [0, 0, 0]), [], 0
    for file, (text, code, product) in tree.codes.items():
        # A line is the product's unless all its code is proof's.
        kept = [
            (whole, ours)
            for whole, all_code, ours in zip(text.splitlines(), code.splitlines(), product.splitlines())
            if ours.strip() or not all_code.strip()
        ]
        row = rows[layer(tree.src, file)]
        row[0] += 1
        row[1] += len(kept)
        row[2] += sum(1 for _, ours in kept if ours.strip())
        crate_wide += len(re.findall(r"\bpub\s*\(\s*crate\s*\)", product))
        lengths += [(length, f"{file.relative_to(root)} {name}") for name, length in functions(product)]
    print(f"{'layer':12} {'files':>6} {'lines':>7} {'of code':>8}")
    for title, row in [*sorted(rows.items()), ("product", [sum(part) for part in zip(*rows.values())])]:
        print(f"{title:12} {row[0]:6} {row[1]:7} {row[2]:8}")
    whole = sum(len(f.read_text(encoding="utf-8").splitlines()) for f in (root / "src").rglob("*.rs"))
    print(f"all of src, with what proves it: {whole} lines")
    longest = max(tree.codes, key=lambda file: len(tree.codes[file][0].splitlines()))
    print(f"longest file: {longest.relative_to(root)}, {len(tree.codes[longest][0].splitlines())} lines")
    print(f"pub(crate): {crate_wide}")
    lengths.sort(reverse=True)
    print(f"functions: {len(lengths)}, median {statistics.median(n for n, _ in lengths):g} lines, the longest:")
    for length, name in lengths[:10]:
        print(f"  {length:4} {name}")


# --- the self-test -------------------------------------------------------------------------------

LIB = "mod base; mod proto; mod session; mod transport; mod pool;\n#[cfg(any(test, fuzzing))]\nmod verify;\n"
SOUND = {
    "lib.rs": LIB + "pub use pool::{Pool, part::Part as Piece};\npub mod error { pub use crate::base::error::*; }\n",
    "base/mod.rs": "pub(crate) mod id; pub(crate) mod sync; pub(crate) mod error; pub(crate) use id::Id;\n",
    "base/id.rs": "pub struct Id; make!(Made); macro_rules! no { () => { $crate::base::sync::lock() } }\n",
    "base/sync.rs": "pub fn lock() {}\n",
    "base/error.rs": "pub struct Error<'a>(&'a u8, char);\nconst C: char = '\"'; // crate::pool::Pool\n",
    "proto/mod.rs": "pub mod slot;\n",
    "proto/slot.rs": "use crate::base::{self, id::{Id, Made as Other}, sync};\n/* use crate::pool::Pool; /* */ */\n"
    "fn f(_: Id, _: Other) -> crate::error::Error { let _ = r#\"crate::pool::Pool\"#; sync::lock(); base::Id }\n",
    "session/mod.rs": "mod lease; pub(crate) use lease::Lease;\n",
    "session/lease.rs": "use crate::proto::slot::*;\npub struct Lease;\n"
    "struct S { #[cfg(test)] pool: std::collections::HashMap<u8, crate::pool::Pool>, own: u8 }\n"
    "#[cfg(all(test, feature = \"x\"))]\n#[path = \"../verify/lease.rs\"]\nmod tests;\n"
    "#[test]\n#[cfg(test)]\nfn t() { crate::pool::part::f() }\n#[cfg(not(test))]\nfn u() {}\n"
    "#[cfg(test)]\nmade! { crate::pool::Pool }\nfn v() {}\n",
    "transport/mod.rs": "#[path = \"tcp_here.rs\"]\npub(crate) mod tcp;\n",
    "transport/tcp_here.rs": "pub(in super::super) struct Tcp;\n",
    "pool/mod.rs": "pub(crate) mod part; mod state; pub use state::Pool;\n",
    "pool/state.rs": "use super::part::Part;\nuse crate::{session::Lease, transport::tcp};\n"
    "pub struct Pool(Part, Lease, tcp::Tcp, crate::base::Id);\n"
    "#[cfg(test)]\nmod tests { use super::*; use crate::pool::part; }\n",
    "pool/part.rs": "pub struct Part;\npub fn f() {}\n#[cfg(test)] use super::Pool;\n",
    "verify/mod.rs": "use crate::pool::Pool;\n",
    "verify/lease.rs": "use crate::pool::Pool;\n",
}
# What is planted in which file, and what must be said of it.
PLANTED = [
    (
        {"proto/slot.rs": "fn g() { crate::session::Lease; }\n"},
        ["src/proto/slot.rs:4: proto must not import from session"],
    ),
    (
        {"base/id.rs": "use crate::{error, proto::{slot::{f as g}}};\n"},
        ["src/base/id.rs:2: base must not import from proto", "a circle of 2 files"],
    ),
    ({"base/id.rs": "pub use crate::Pool;\n"}, ["src/base/id.rs:2: base must not import from pool"]),
    ({"session/lease.rs": "use crate::transport::tcp::Tcp as T;\n"}, ["session must not import from transport"]),
    (
        {"transport/tcp_here.rs": "use crate::session::*;\nfn f(_: Lease) {}\n"},
        ["transport must not import from session"],
    ),
    # What only proof compiles is not there for the product.
    (
        {"pool/part.rs": "use crate::verify::Proof;\n"},
        ["src/pool/part.rs:4: pool must not import from lib.rs"],
    ),
    ({"lib.rs": "mod other;\n", "other.rs": "struct S;\n"}, ["src/other.rs:1: is in no layer"]),
    ({"pool/part.rs": "fn g() -> super::Pool {}\n"}, ["src/pool/part.rs:4 imports super::Pool (src/pool/state.rs)"]),
    ({"pool/part.rs": "use crate::{error::{self}, Pool as P};\n"}, ["imports crate::Pool (src/pool/state.rs)"]),
    ({"pool/part.rs": "use super::*;\nfn g(_: Pool) {}\n"}, ["imports super::Pool (src/pool/state.rs)"]),
    ({"base/sync.rs": "use super::id;\nfn g(_: id::Made) {}\n"}, ["src/base/id.rs:1 imports crate::base::sync::lock"]),
    ({"session/mod.rs": "fn g(_: Lease) {}\n", "session/lease.rs": "use super::g;\n"}, ["a circle of 2 files"]),
    (
        {"pool/mod.rs": "mod a; mod b; mod c;\n", "pool/a.rs": "use super::b::B;\nuse super::part::f;\npub struct A;\n",
         "pool/b.rs": "use super::c::C;\npub struct B;\n", "pool/c.rs": "pub struct C(super::a::A);\n"},
        ["src/pool/a.rs:1 imports super::b::B (src/pool/b.rs)\n       src/pool/b.rs:1"],
    ),
    ({"pool/part.rs": "#[cfg(unix)]\nmod inner { use crate::pool::state::Pool; }\n"}, ["a circle of 2 files"]),
]


def self_test():
    for planted, expected in [({}, []), *PLANTED]:
        with tempfile.TemporaryDirectory() as folder:
            for name in SOUND.keys() | planted.keys():
                file = Path(folder).resolve() / "src" / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(SOUND.get(name, "") + planted.get(name, ""), encoding="utf-8")
            failures, _ = check(Path(folder).resolve())
        said = "\n".join(failures)
        if len(failures) != len(expected) or not all(text in said for text in expected):
            sys.exit(f"the self-test failed: planted {planted}\nexpected {expected}\nfound {said or 'nothing'}")


def main():
    parser = argparse.ArgumentParser(description="layers and circles of the product's files")
    parser.add_argument("--root", type=Path, default=Path("."))
    parser.add_argument("--counts", action="store_true")
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()
    self_test()
    if arguments.self_test:
        print(f"{len(PLANTED) + 1} trees: what is planted is found, and nothing else")
        return
    root = arguments.root.resolve()
    if arguments.counts:
        counts(root)
        return
    failures, looked_at = check(root)
    for failure in failures:
        print(f"FAIL {failure}")
    print(f"{looked_at}: {len(failures)} findings")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
