# SPDX-License-Identifier: Apache-2.0
#
# Reading C++ as text, well enough for the rules of scripts/tidy: blanks out comments and strings
# (keeping line numbers), and finds functions, lambdas and co_await expressions by their brackets.

import re

TOKEN = re.compile(
    r"""//[^\n]*|/\*.*?\*/"""
    r"""|R"(?P<raw>[^(\s]*)\(.*?\)(?P=raw)"|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])+'""",
    re.DOTALL,
)
CLOSING = {"(": ")", "[": "]", "{": "}"}
NOT_A_FUNCTION = re.compile(r"\b(namespace|class|struct|union|enum|extern|concept)\b[^()]*$")


def blank(text, keep_strings=False):
    """`text` with comments and (unless kept) strings replaced by blanks of the same shape."""

    def replace(match):
        token = match.group(0)
        # 1'000'000: a digit separator is no character literal.
        if token[0] == "'" and match.start() and text[match.start() - 1].isalnum():
            return token
        if token[0] != "/" and keep_strings:
            return token
        return re.sub(r"[^\n]", " ", token)

    return TOKEN.sub(replace, text)


def line_of(text, position):
    return text.count("\n", 0, position) + 1


def matching(text, start):
    """The position of the bracket that closes the one at `start`; the text's end if none does."""
    opening, closing, depth = text[start], CLOSING[text[start]], 0
    for position in range(start, len(text)):
        if text[position] == opening:
            depth += 1
        elif text[position] == closing:
            depth -= 1
            if depth == 0:
                return position
    return len(text) - 1


def functions(code):
    """(start, end) of each function's text, from the end of the statement before it to its brace.
    `code` is blanked; whatever has braces at namespace or class level and a parameter list."""
    position, statement = 0, 0
    while position < len(code):
        char = code[position]
        if char in ";}":
            statement = position + 1
        elif char == "{":
            head = re.sub(r"^\s*#.*$", "", code[statement:position], flags=re.MULTILINE)
            if ")" in head and not NOT_A_FUNCTION.search(head):
                end = matching(code, position)
                lead = len(code[statement:position]) - len(code[statement:position].lstrip())
                yield statement + lead, end
                position, statement = end, end + 1
            else:
                statement = position + 1
        position += 1


LAMBDA = re.compile(r"(?<![\w\])>])\[(?P<captures>[^\[\]]*)\]\s*(?=[({<]|mutable\b|noexcept\b|->)")


def lambdas(code):
    """(position, captures, body start, body end) of each lambda of `code` (blanked)."""
    for match in LAMBDA.finditer(code):
        position = match.end()
        while position < len(code) and code[position] not in "{;":
            position = matching(code, position) + 1 if code[position] in "([" else position + 1
        if position < len(code) and code[position] == "{":
            yield match.start(), match.group("captures").strip(), position, matching(code, position)


def awaited(code):
    """(position, text) of each operand of co_await, up to the bracket or comma after it."""
    for match in re.finditer(r"\bco_await\b", code):
        position = match.end()
        while position < len(code) and code[position] not in ";,)}]":
            position = matching(code, position) + 1 if code[position] in "([{" else position + 1
        yield match.start(), code[match.end() : position]
