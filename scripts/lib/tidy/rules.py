# SPDX-License-Identifier: Apache-2.0
#
# What the rules of scripts/tidy are made of. A rule is a function that takes {path: text} of the
# whole tree and yields (path, line, message); @rule puts it in the list, and its name is shown.
# tests/scripts/tidy_test.py shows each of them a text on which it must fire and one on which it
# must not. The rules restate docs/STYLE.md: change both.

import re
from dataclasses import dataclass

from . import text as cpp

RULES = []
CPP = (".h", ".cc", ".c")
BLOB_MAX = 256 * 1024
# These name what they forbid.
OWN = ("scripts/lib/tidy/words.py", "tests/scripts/tidy_test.py")


@dataclass(frozen=True)
class Finding:
    path: str
    line: int
    rule: str
    message: str

    def __str__(self):
        return f"{self.path}:{self.line}: {self.rule}: {self.message}"


def rule(function):
    RULES.append(function)
    return function


def check(files):
    """All findings in `files`, a dict of path to bytes."""
    texts, findings = {}, []
    for path, content in files.items():
        if len(content) > BLOB_MAX:
            message = f"{len(content)} bytes; at most {BLOB_MAX}: generate it, or keep it elsewhere"
            findings.append(Finding(path, 1, "blob", message))
        try:
            texts[path] = content.decode()
        except UnicodeDecodeError:
            if not re.match(r"tests/.*corpus/|docs/.*\.png$", path):
                findings.append(Finding(path, 1, "blob", "binary file; only fuzz corpora may be"))
    for each in RULES:
        name = each.__name__.replace("_", "-")
        findings += [Finding(path, line, name, message) for path, line, message in each(texts)
                     if not is_excused(texts[path], line, name)]
    return sorted(findings, key=lambda f: (f.path, f.line, f.rule))


def is_excused(text, line, name):
    """Whether `tidy(NAME): reason` stands on the line or the one before it."""
    near = text.splitlines()[max(line - 2, 0) : line]
    return any(re.search(rf"\btidy\({name}\): \S", each) for each in near)


def is_cpp(path):
    return path.endswith(CPP)


def is_script(path, text):
    return path.endswith((".py", ".sh", ".cmake", "CMakeLists.txt")) or text.startswith("#!")


def sources(files, *prefixes):
    """(path, text, text without comments and strings) of the C++ files under `prefixes`."""
    for path, text in files.items():
        if is_cpp(path) and path.startswith(prefixes or ""):
            yield path, text, cpp.blank(text)


def matches(pattern, text):
    for match in re.finditer(pattern, text):
        yield cpp.line_of(text, match.start()), match
