# SPDX-License-Identifier: Apache-2.0
#
# Rules of scripts/tidy about the documents: what they link to, and what code cites, exists.

import os
import re

from .rules import OWN, is_cpp, is_script, matches, rule

def anchors(text):
    """The anchors that headings of a Markdown text get."""
    for heading in re.findall(r"^#+ +(.+?)\s*$", text, re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@rule
def doc_link(files):
    folders = {os.path.dirname(path) for path in files}
    folders |= {f.rsplit("/", up)[0] for f in folders for up in range(1, f.count("/") + 1)}
    for path, text in files.items():
        if not path.endswith(".md"):
            continue
        prose = re.sub(r"```.*?```", lambda found: re.sub(r"[^\n]", " ", found.group(0)), text,
                       flags=re.DOTALL)
        for line, match in matches(r"\]\(([^()\s]+)\)", prose):
            target, _, anchor = match.group(1).partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            place = os.path.normpath(os.path.join(os.path.dirname(path), target))
            place = place if target else path
            if place not in files and place not in folders and place != ".":
                yield path, line, f"the link to {match.group(1)} leads nowhere"
            elif anchor and place in files and anchor not in anchors(files[place]):
                yield path, line, f"{place} has no heading #{anchor}"


@rule
def doc_reference(files):
    for path, text in files.items():
        if path in OWN or path.endswith(".md") or not (is_cpp(path) or is_script(path, text)):
            continue
        for line, match in matches(r"(?<![\w/.])docs/[\w/-]+(\.md)?", text):
            named = match.group(0).rstrip("/")
            if not any(f == named or f.startswith((named + "/", named + "-")) for f in files):
                yield path, line, f"{named} does not exist"


LISTING = re.compile(r"<!-- listing: (\S+) -->\n+```\w*\n(.*?)```", re.S)


@rule
def doc_listing(files):
    """A listing that names its file is a part of that file, so that it is compiled with it."""
    for path, text in files.items():
        for line, match in matches(LISTING, text) if path.endswith(".md") else ():
            if match.group(2) not in files.get(match.group(1), ""):
                yield path, line, f"this listing is no part of {match.group(1)}: copy it anew"
