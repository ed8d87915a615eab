#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Shows scripts/lib/test_summary.py what ctest writes, and looks at the closing line and the exit
# status: nothing that failed, or that CI must not skip, may be counted as passed.

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SUMMARY = Path(__file__).resolve().parents[2] / "scripts" / "lib" / "test_summary.py"
GTEST = """[ RUN      ] A.Passes
[       OK ] A.Passes (0 ms)
[ RUN      ] A.Skips
x.cc:1: Skipped
{skip}

[  SKIPPED ] A.Skips (0 ms)
[ RUN      ] A.Fails
x.cc:2: Failure
[  FAILED  ] A.Fails (1 ms)
"""


def testcase(status, output="", inner=""):
    return (f'<testsuite><testcase name="t" status="{status}">{inner}'
            f"<system-out>{output}</system-out></testcase></testsuite>")


def closing(xml, ci="", failed=None):
    """(last line, exit status) of the summary of one preset's file."""
    with tempfile.TemporaryDirectory() as folder:
        if xml:
            (Path(folder) / "release.xml").write_text(xml)
        if failed:
            (Path(folder) / "tsan.failed").write_text(failed)
        done = subprocess.run([sys.executable, SUMMARY, folder], capture_output=True, text=True,
                              env={**os.environ, "CI": ci})
        return done.stdout.splitlines()[-1], done.returncode


class TestSummary(unittest.TestCase):
    def test_counts_a_plain_test_once(self):
        self.assertEqual(closing(testcase("run")), ("1 passed, 0 failed, 0 skipped", 0))

    def test_counts_the_cases_of_a_gtest_program(self):
        xml = testcase("fail", GTEST.format(skip="no x"), "<failure message=''/>")
        self.assertEqual(closing(xml), ("1 passed, 1 failed, 1 skipped", 1))

    def test_counts_a_gtest_program_that_crashed_as_failed(self):
        xml = testcase("fail", "[ RUN      ] A.Crashes\n", "<failure message='SEGFAULT'/>")
        self.assertEqual(closing(xml), ("0 passed, 1 failed, 0 skipped", 1))

    def test_counts_a_crash_after_passed_cases_as_failed(self):
        output = "[ RUN      ] A.B\n[       OK ] A.B (0 ms)\n"
        xml = testcase("fail", output, "<failure message='SEGFAULT'/>")
        self.assertEqual(closing(xml), ("1 passed, 1 failed, 0 skipped", 1))

    def test_counts_a_program_that_is_not_there_as_failed(self):
        self.assertEqual(closing(testcase("notrun")), ("0 passed, 1 failed, 0 skipped", 1))

    def test_accepts_a_skip_by_hand_but_not_in_ci(self):
        xml = testcase("notrun", "SKIP: fio is not installed\n", "<skipped message='77'/>")
        self.assertEqual(closing(xml), ("0 passed, 0 failed, 1 skipped", 0))
        self.assertEqual(closing(xml, ci="true"), ("0 passed, 1 failed, 0 skipped", 1))

    def test_accepts_in_ci_what_the_machine_lacks(self):
        xml = testcase("notrun", "SKIP: machine: no io_uring\n", "<skipped message='77'/>")
        self.assertEqual(closing(xml, ci="true"), ("0 passed, 0 failed, 1 skipped", 0))

    def test_counts_a_failed_build_as_failed(self):
        self.assertEqual(closing(testcase("run"), failed="build of preset tsan"),
                         ("1 passed, 1 failed, 0 skipped", 1))

    def test_fails_when_nothing_ran(self):
        self.assertEqual(closing(""), ("0 passed, 0 failed, 0 skipped", 1))


if __name__ == "__main__":
    unittest.main()
