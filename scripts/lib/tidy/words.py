# SPDX-License-Identifier: Apache-2.0
#
# Rules of scripts/tidy about words that have a better one, and about traps of coroutines.

import re

from . import text as cpp
from .rules import OWN, is_cpp, is_script, matches, rule, sources

ANYWHERE = ("",)
ENGINE = ("include/", "src/base/", "src/async/", "src/core/", "src/frontends/", "src/journal/",
          "src/objects/", "src/devices/", "src/layers/")
ABOVE_ASYNC = ENGINE[3:]
# Where the system is dealt with: threads and clocks are made here, and handed to the rest.
ADAPTERS = ("src/frontends/nbd/kernel/",)
# (what, where, instead)
BANNED = [
    (r"\bstd::expected\b|<expected>", ANYWHERE, "usbd::Result, which warns when it is dropped"),
    (r"\busing\s+namespace\b(?!\s+std::(\w+_)?literals)", ANYWHERE, "the names"),
    (r"\bstd::endl\b", ANYWHERE, "'\\n'"),
    (r"\bNULL\b", ANYWHERE, "nullptr"),
    (r"(?<![\w.:])assert\s*\(|<cassert>|<assert\.h>", ANYWHERE, "USBD_ASSERT, on in every build"),
    (r"\b(std::)?(sprintf|vsprintf|strcpy|strcat|gets)\s*\(", ANYWHERE, "fmt or std::string"),
    (r"\b(std::)?(atoi|atol|atoll|atof)\s*\(", ANYWHERE, "std::from_chars, which says what failed"),
    (r"\b(std::rand|(?<![\w.:>])s?rand)\s*\(|\bstd::random_device\b|\bgetrandom\s*\(",
     ENGINE[1:], "an injected Rng (base/random.h)"),
    (r"\bstd::(j?thread|async)\b", ABOVE_ASYNC, "a Loop or a WorkerPool"),
    (r"\bstd::this_thread::sleep|\b(u|nano)sleep\s*\(|(?<!\w)::sleep\s*\(", ENGINE,
     "the loop's sleep_for"),
    (r"\bsystem_clock\b|\bsteady_clock\b|\bclock_gettime\s*\(|\bgettimeofday\s*\(", ABOVE_ASYNC,
     "the loop's clock (Loop::now)"),
    (r"\bsignal\s*\(", ("src/", "include/", "cmd/"), "sigaction or signalfd"),
    (r"\bstd::c(out|err|log)\b|<iostream>", ("src/", "include/"),
     "usbd::log, or fmt::print in daemon"),
    (r"(?<![\w.:])(std::)?f?printf\s*\(|\bfmt::print\s*\(", ENGINE, "usbd::log"),
    (r"\bgoto\b", ANYWHERE, "a function with early returns"),
]
MAY = {  # the adapters themselves
    "src/base/assert.cc": r"printf",
    "src/base/log.cc": r"printf|print",
    "src/base/random.cc": r"getrandom",
}


@rule
def banned(files):
    for path, text, code in sources(files):
        for pattern, where, instead in BANNED:
            if not path.startswith(where):
                continue
            if path.startswith(ADAPTERS) and "loop" in instead.lower():
                continue
            if path.endswith("_test.cc") and re.search(r"loop|Rng|sigaction", instead, re.I):
                continue
            for line, match in matches(pattern, code):
                if not re.search(MAY.get(path, r"$^"), match.group(0)):
                    yield path, line, f"`{match.group(0).strip()}`: use {instead}"


@rule
def left_over(files):
    for path, text in files.items():
        if path in OWN or not (is_cpp(path) or is_script(path, text) or path.endswith(".md")):
            continue
        if path.endswith(".md"):
            text = re.sub(r"`[^`\n]*`", lambda found: " " * len(found.group(0)), text)
        pattern = r"\b(FIXME|XXX|HACK)\b|\bTODO\b(?!\((soon|someday|perf|test)\): \S)"
        for line, match in matches(pattern, text):
            yield path, line, f"`{match.group(0)}`: do it, or TODO(soon|someday|perf|test): what"


@rule
def nolint_reason(files):
    for path, text, _ in sources(files):
        for line, _ in matches(r"\bNOLINT(?!END)\w*(?!\w*\([\w.,* -]+\): \S)(?!\w)", text):
            yield path, line, "write NOLINT(check): and the reason"


@rule
def machine_path(files):
    for path, text in files.items():
        if path in OWN or path == ".gitignore":
            continue
        pattern = r"(?<![\w.$}/])/(home|Users|work|shared)/\w+|\.\./shared\b"
        for line, match in matches(pattern, text):
            yield path, line, f"`{match.group(0)}`: a path of one machine"


@rule
def capture_all_by_value(files):
    for path, _, code in sources(files):
        for line, _ in matches(r"\[\s*=\s*[\],]", code):
            yield path, line, "`[=]`: name what is captured; in a coroutine it dies with the lambda"


@rule
def detached(files):
    for path, _, code in sources(files):
        for line, _ in matches(r"(thread\w*|[)}])\s*(\.|->)detach\s*\(\s*\)", code):
            yield path, line, "`.detach()`: spawn it in a Scope, or join the thread"


@rule
def lambda_coroutine(files):
    for path, _, code in sources(files):
        found = list(cpp.lambdas(code))
        for start, captures, body, end in found:
            inner = code[body : end + 1]
            for other, _, first, last in found:  # a lambda inside has its own body
                if body < first and last < end:
                    inner = inner.replace(code[first : last + 1], "")
            if captures and re.search(r"\bco_(await|return|yield)\b", inner):
                yield path, cpp.line_of(code, start), \
                    "a coroutine that captures: its captures die before it; pass them as parameters"


@rule
def temporary_in_await(files):
    for path, _, code in sources(files):
        for start, operand in cpp.awaited(code):
            captures = [found for _, found, _, _ in cpp.lambdas(operand) if found]
            # usbd's own flags are destroyed twice without harm.
            operand = re.sub(r"\b(Write|Zero)Flags\s*\{", "", operand)
            if captures or re.search(r"\{\s*\.\w+\s*=", operand):
                yield path, cpp.line_of(code, start), \
                    "a capturing lambda or an aggregate inside co_await: name it first (g++ 12)"
