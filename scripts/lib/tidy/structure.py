# SPDX-License-Identifier: Apache-2.0
#
# Rules of scripts/tidy about what may include what, and what every file has.

import ast
import os
import re

from . import text as cpp
from .rules import is_cpp, is_script, matches, rule, sources

# The folders of src/ from the bottom up, each with what it may include besides itself and
# include/usbd. `frontends/nbd` and `devices/file` stand for one folder each: neighbours are never
# visible to each other. docs/ARCHITECTURE.md says why.
ARROWS = {
    "base": (),
    "crypto": ("base",),
    "codec": ("base",),
    "async": ("base",),
    "core": ("base", "async"),
    "frontends": ("base", "async", "core"),
    "journal": ("base", "crypto", "async", "core"),
    "objects": ("base", "crypto", "async", "core"),
    "devices": ("base", "crypto", "codec", "async", "core", "journal", "objects"),
    "layers": ("base", "async", "core"),
    "daemon": ("base", "crypto", "codec", "async", "core", "journal", "objects", "frontends",
               "devices", "layers"),
    "ctl": ("base", "crypto", "codec", "async", "core", "journal", "objects", "devices", "daemon"),
}
SPLIT = ("frontends", "devices")  # each folder inside is a unit of its own
MAY_INCLUDE_DAEMON = ("src/daemon/", "src/ctl/", "cmd/", "tests/", "bench/")
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"]+)"', re.MULTILINE)


def unit(path):
    """`frontends/nbd` for frontends/nbd/x/y.h, `core` for core/x.h."""
    parts = path.split("/")
    return "/".join(parts[: 2 if parts[0] in SPLIT else 1])


def includes(text):
    for match in INCLUDE.finditer(cpp.blank(text, keep_strings=True)):
        yield cpp.line_of(text, match.start()), match.group(1)


@rule
def arrow(files):
    for path, text in files.items():
        if not is_cpp(path):
            continue
        for line, name in includes(text):
            top = name.split("/")[0]
            if top == "daemon" and not path.startswith(MAY_INCLUDE_DAEMON):
                yield path, line, f"nothing but ctl includes daemon, but this includes {name}"
            elif path.startswith("include/") and top != "usbd":
                yield path, line, f"an installed header includes only usbd/ headers, not {name}"
            elif path.startswith("src/") and top in ARROWS:
                own = unit(path.removeprefix("src/"))
                allowed = ARROWS.get(own.split("/")[0], ())
                if unit(name) != own and top not in allowed:
                    yield path, line, f"src/{own} may include {', '.join(allowed) or 'nothing'}" \
                        f" and itself, not {name}"


@rule
def known_folder(files):
    for path in files:
        parts = path.split("/")
        if parts[0] == "src" and len(parts) > 2 and parts[1] not in ARROWS:
            yield path, 1, f"src/{parts[1]} has no place in ARROWS (scripts/lib/tidy)"


@rule
def include_root(files):
    for path, text in files.items():
        for line, name in includes(text) if is_cpp(path) else ():
            roots = ["include/" + name, "src/" + name, name]
            if not path.startswith(("src/", "include/")):
                roots += ["tests/" + name, os.path.join(os.path.dirname(path), name)]
            if name.startswith(".") or not any(root in files for root in roots):
                yield path, line, f'no file "{name}" below include/ or src/: includes start there'


@rule
def own_header_first(files):
    for path, text, _ in sources(files, "src/"):
        header = path[: -len(".cc")].removeprefix("src/") + ".h"
        if path.endswith(".cc") and "src/" + header in files:
            found = re.search(r"^#include\s*(.*)$", text, re.MULTILINE)
            if found and found.group(1).strip() != f'"{header}"':
                yield path, cpp.line_of(text, found.start()), f'include "{header}" first'


@rule
def pragma_once(files):
    for path, _, code in sources(files):
        if path.endswith(".h") and not re.search(r"^#pragma once$", code, re.MULTILINE):
            yield path, 1, "a header needs #pragma once"


@rule
def spdx(files):
    for path, text in files.items():
        if not (is_cpp(path) or is_script(path, text)):
            continue
        lines = text.splitlines()
        if lines and lines[0].startswith("#!"):
            lines = lines[1:]
        mark = "//" if is_cpp(path) else "#"
        if not lines or lines[0] != mark + " SPDX-License-Identifier: Apache-2.0":
            yield path, 1, f"the first line is `{mark} SPDX-License-Identifier: Apache-2.0`"
            continue
        about = next((line for line in lines[1:] if line.strip() != mark), "")
        if not re.match(mark + r" \S", about):
            yield path, 2, "the licence line is followed by a comment: what this file is for"


@rule
def blanks(files):
    for path, text in files.items():
        if not (is_cpp(path) or is_script(path, text) or path.endswith(".md")):
            continue
        for line, _ in matches(r"[ \t]+(?=\n)|\t|\r", text):
            yield path, line, "blanks at the end of the line, a tab or a carriage return"
        if not text.endswith("\n") or text.endswith("\n\n"):
            yield path, text.count("\n") + 1, "a file ends with one newline"


@rule
def columns(files):
    for path, text in files.items():
        for number, line in enumerate(text.splitlines(), 1):
            if len(line) > 100 and (is_cpp(path) or is_script(path, text)) and "://" not in line:
                yield path, number, f"{len(line)} columns; at most 100"


@rule
def file_length(files):
    for path, text in files.items():
        longest = 1200 if re.search(r"_test\.cc$|^tests/", path) else 800
        count = text.count("\n")
        if (is_cpp(path) or is_script(path, text)) and count > longest:
            yield path, longest, f"{count} lines; at most {longest}: split it"


@rule
def function_length(files):
    for path, text, code in sources(files):
        for start, end in cpp.functions(code):
            first, last = cpp.line_of(code, start), cpp.line_of(code, end)
            if last - first + 1 > 70:
                yield path, first, f"function of {last - first + 1} lines; at most 70: split it"
    for path, text in files.items():
        if path.endswith(".py") or text.startswith("#!/usr/bin/env python3"):
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 70:
                    yield path, node.lineno, "function of more than 70 lines: split it"
