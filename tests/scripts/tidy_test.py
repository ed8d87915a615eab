#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Shows each rule of scripts/tidy a small tree on which it must fire (at the line given) and, where
# one is easily mistaken, a tree on which it must not. A rule without a bad example fails the test.

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "lib"))
sys.dont_write_bytecode = True

import tidy  # noqa: E402

CC = "// SPDX-License-Identifier: Apache-2.0\n//\n// About.\n"
PY = "# SPDX-License-Identifier: Apache-2.0\n#\n# About.\n"
LISTING = "<!-- listing: x.cc -->\n```cpp\nint x;\n```\n"
LONG = CC + "void f() {\n" + "  g();\n" * 70 + "}\n"


def cc(text, path="src/core/x.cc"):
    return {path: CC + text}


# (rule, tree, line at which it fires)
BAD = [
    ("arrow", cc('#include "core/a.h"\n', "src/base/x.cc"), 4),
    ("arrow", cc('#include "frontends/ublk/a.h"\n', "src/frontends/nbd/x.cc"), 4),
    ("arrow", cc('#include "devices/file/a.h"\n', "src/devices/memory/x.cc"), 4),
    ("arrow", cc('#include "devices/file/a.h"\n', "src/layers/x.cc"), 4),
    ("arrow", cc('#include "frontends/nbd/a.h"\n', "src/journal/x.cc"), 4),
    ("arrow", cc('#include "daemon/a.h"\n', "src/core/x.cc"), 4),
    ("arrow", cc('#include "daemon/a.h"\n', "examples/x.cc"), 4),
    ("arrow", cc('#pragma once\n#include "base/a.h"\n', "include/usbd/x.h"), 5),
    ("known-folder", cc("", "src/misc/x.cc"), 1),
    ("include-root", cc('#include "absent.h"\n'), 4),
    ("include-root", {**cc('#include "../base/a.h"\n'), "src/base/a.h": b""}, 4),
    ("own-header-first", {**cc("\n#include <map>\n"), "src/core/x.h": b""}, 5),
    ("pragma-once", cc("int x;\n", "src/core/x.h"), 1),
    ("spdx", {"src/core/x.cc": "int x;\n"}, 1),
    ("spdx", {"scripts/x": "#!/bin/bash\necho\n"}, 1),
    ("spdx", {"src/core/x.cc": "// SPDX-License-Identifier: Apache-2.0\nint x;\n"}, 2),
    ("blanks", cc("int x; \n"), 4),
    ("blanks", cc("\tint x;\n"), 4),
    ("blanks", cc("int x;"), 4),
    ("columns", cc("int " + "x" * 100 + ";\n"), 4),
    ("file-length", cc("int x;\n" * 800), 800),
    ("function-length", {"src/core/x.cc": LONG}, 4),
    ("function-length", {"scripts/x.py": PY + "def f():\n" + "    pass\n" * 71}, 4),
    ("blob", {"docs/x.bin": b"\xff\xfe"}, 1),
    ("blob", {"docs/x.json": b" " * 300_000}, 1),
    ("banned", cc("std::expected<int, int> x;\n"), 4),
    ("banned", cc("using namespace std;\n"), 4),
    ("banned", cc("void* p = NULL;\n"), 4),
    ("banned", cc("void f() { assert(x); }\n"), 4),
    ("banned", cc("void f() { sprintf(p, q); }\n"), 4),
    ("banned", cc("int x = atoi(p);\n"), 4),
    ("banned", cc("int x = rand();\n"), 4),
    ("banned", cc("std::thread x;\n"), 4),
    ("banned", cc("void f() { std::this_thread::sleep_for(d); }\n"), 4),
    ("banned", cc("auto t = std::chrono::steady_clock::now();\n"), 4),
    ("banned", cc("void f() { std::cerr << 1; }\n"), 4),
    ("banned", cc('void f() { fprintf(stderr, "here"); }\n'), 4),
    ("left-over", cc("// FIXME: later\n"), 4),
    ("left-over", cc("// TODO: later\n"), 4),
    ("left-over", cc("// TODO(now): this\n"), 4),
    ("nolint-reason", cc("int x;  // NOLINT\n"), 4),
    ("nolint-reason", cc("int x;  // NOLINT(bugprone-x)\n"), 4),
    ("machine-path", {"README.md": "see /home/someone/x\n"}, 1),
    ("capture-all-by-value", cc("auto f = [=] { return x; };\n"), 4),
    ("detached", cc("void f() { thread.detach(); }\n"), 4),
    ("detached", cc("void f() { std::thread(g).detach(); }\n"), 4),
    ("detached", cc("// tidy(detached):\nvoid f() { thread.detach(); }\n"), 5),
    ("lambda-coroutine", cc("auto f = [&x]() -> Task<void> { co_await x.y(); };\n"), 4),
    ("lambda-coroutine", cc("auto f = [this] {\n  if (a) {\n    co_return;\n  }\n};\n"), 4),
    ("temporary-in-await", cc("Task<void> f() { co_await g([x] { h(x); }); }\n"), 4),
    ("temporary-in-await", cc("Task<void> f() { co_await g(Options{.a = 1}); }\n"), 4),
    ("doc-link", {"docs/a.md": "x\n[b](b.md)\n"}, 2),
    ("doc-link", {"docs/a.md": "# One\n\n[b](#two)\n"}, 3),
    ("doc-listing", {"a.md": LISTING, "x.cc": "int y;\n"}, 1),
    ("doc-reference", cc("// see docs/absent.md\n"), 4),
]

# (rule, tree) that must pass
GOOD = [
    ("arrow", cc('#include "core/a.h"\n#include "frontends/nbd/b.h"\n', "src/frontends/nbd/x.h")),
    ("arrow", cc('#include "daemon/a.h"\n', "cmd/usbdsrvd/main.cc")),
    ("arrow", cc('// #include "daemon/a.h"\n')),
    ("include-root", {**cc('#include "usbd/a.h"\n'), "include/usbd/a.h": b""}),
    ("own-header-first", {**cc('#include "core/x.h"\n#include <map>\n'), "src/core/x.h": b""}),
    ("function-length", cc("namespace a {\n" + "int f();\n" * 80 + "}\n")),
    ("function-length", cc("class A {\n" + "  int f() { return 1; }\n" * 80 + "};\n")),
    ("banned", cc('// assert(x), NULL, std::thread\nconst char* s = "std::cout";\n')),
    ("banned", cc("static_assert(a);\nvoid f() { USBD_ASSERT(x); }\n")),
    ("banned", cc("std::jthread thread;\n", "src/async/x.cc")),
    ("left-over", cc("// TODO(soon): this\n")),
    ("nolint-reason", cc("int x;  // NOLINT(bugprone-x): the kernel's name\n// NOLINTEND\n")),
    ("doc-listing", {"a.md": LISTING, "x.cc": "int x;\n"}),
    ("machine-path", {"README.md": "see https://example.org/home/page and docs/work/x\n"}),
    ("detached", cc("// tidy(detached): ends with us\nvoid f() { thread.detach(); }\n")),
    ("detached", cc("void f() { attach_->detach(); }\n")),
    ("banned", cc("std::thread thread;\n", "src/frontends/nbd/kernel/x.cc")),
    ("temporary-in-await", cc("Task<void> f() { co_await g(WriteFlags{.fua = true}); }\n")),
    ("lambda-coroutine", cc("auto f = [](int x) -> Task<void> { co_await g(x); };\n")),
    ("lambda-coroutine", cc("Task<int> f() {\n  auto g = [&] { h(); };\n  co_await h(g);\n}\n")),
    ("temporary-in-await", cc("Task<void> f() { co_await g(ByteRange(a[i], 1)); }\n")),
    ("doc-link", {"docs/a.md": "[b](b.md#a-b) [c](https://x.org) [d](../docs)\n",
                  "docs/b.md": "## A `b`!\n"}),
]


def found(tree):
    as_bytes = {path: text if isinstance(text, bytes) else text.encode()
                for path, text in tree.items()}
    return [(finding.rule, finding.line) for finding in tidy.check(as_bytes)]


class TidyRules(unittest.TestCase):
    def test_each_rule_fires_on_a_bad_example(self):
        for rule, tree, line in BAD:
            with self.subTest(rule=rule, tree=str(tree)[-60:]):
                self.assertIn((rule, line), found(tree))

    def test_no_rule_fires_on_a_good_example(self):
        for rule, tree in GOOD:
            with self.subTest(rule=rule, tree=str(tree)[-60:]):
                self.assertNotIn(rule, [name for name, _ in found(tree)])

    def test_every_rule_has_a_bad_example(self):
        names = {function.__name__.replace("_", "-") for function in tidy.RULES} | {"blob"}
        self.assertEqual(names, {rule for rule, _, _ in BAD})


if __name__ == "__main__":
    unittest.main()
