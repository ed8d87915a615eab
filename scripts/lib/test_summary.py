#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# test_summary.py FOLDER: adds up the JUnit files that ctest left in FOLDER, one per preset. A gtest
# program counts as its test cases, anything else as one test. FOLDER/PRESET.failed stands for
# something that failed before tests could run. Prints what failed and what was skipped and why,
# then the closing line. Fails if anything failed, or if nothing ran.

import os
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

CASE = re.compile(r"^\[ RUN      \] (\S+)\n(.*?)^\[ +(OK|FAILED|SKIPPED) +\] \1", re.M | re.S)
# A skip for what no package can mend says so.
MACHINE = re.compile(r"\bmachine: ")


def gtest_cases(output):
    """(name, verdict, text) of each test case in the output of a gtest program."""
    for match in CASE.finditer(output):
        yield match.group(1), match.group(3), match.group(2).strip()


def verdicts(testcase):
    """(name, "passed" | "failed" | "skipped", reason) of what one ctest entry stands for."""
    name, status = testcase.get("name"), testcase.get("status")
    output = testcase.findtext("system-out") or ""
    cases = list(gtest_cases(output))
    words = {"OK": "passed", "FAILED": "failed", "SKIPPED": "skipped"}
    for case, verdict, text in cases:
        yield f"{name}: {case}", words[verdict], text
    if testcase.find("skipped") is not None or status in ("notrun", "disabled"):
        lines = [line for line in output.splitlines() if "SKIP" in line] or [status]
        # ctest also says "notrun" of a program that is not there: that is no skip.
        missing = status == "notrun" and testcase.find("skipped") is None
        yield name, "failed" if missing else "skipped", lines[-1]
    elif status == "fail" and not any(verdict == "FAILED" for _, verdict, _ in cases):
        failure = testcase.find("failure")
        yield name, "failed", failure.get("message", "") if failure is not None else ""
    elif status == "run" and not cases:
        yield name, "passed", ""


def main():
    folder, strict = Path(sys.argv[1]), os.environ.get("CI") == "true"
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    lines = []
    for path in sorted(folder.glob("*.failed")):
        counts["failed"] += 1
        lines.append(f"failed: {path.read_text().strip()}")
    for path in sorted(folder.glob("*.xml")):
        for testcase in ElementTree.parse(path).getroot().iter("testcase"):
            for name, verdict, reason in verdicts(testcase):
                if verdict == "skipped" and strict and not MACHINE.search(reason):
                    verdict, reason = "failed", f"skipped, which CI does not accept: {reason}"
                counts[verdict] += 1
                if verdict != "passed":
                    first = next(iter(reason.splitlines()[-1:]), "")
                    lines.append(f"{verdict}: {path.stem}: {name}: {first}".rstrip(": "))
    print("\n".join(lines))
    if not sum(counts.values()):
        print("no test was run")
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**counts))
    return 1 if counts["failed"] or not sum(counts.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
