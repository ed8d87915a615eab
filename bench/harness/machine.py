# SPDX-License-Identifier: Apache-2.0
#
# What a figure means nothing without: the machine, the kernel, the commit, the peers' versions.

import os
import platform
import subprocess
from pathlib import Path


def _first_line(*command, directory=None) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, cwd=directory,
                              check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    text = (done.stdout or done.stderr).strip()
    return text.splitlines()[0] if done.returncode == 0 and text else ""


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def memory_field(field: str) -> int:
    """A field of /proc/meminfo, in bytes."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, value = line.split(":", 1)
        if name == field:
            return int(value.split()[0]) << 10
    return 0


def commit_of(root: Path) -> str:
    commit = _first_line("git", "rev-parse", "--short=12", "HEAD", directory=root)
    if not commit:
        return "unknown"
    changed = _first_line("git", "status", "--porcelain", directory=root)
    return commit + (" with changes" if changed else "")


def build_type_of(programs: Path) -> str:
    cache = programs.parent / "CMakeCache.txt"
    if not cache.exists():
        return "unknown"
    for line in cache.read_text().splitlines():
        if line.startswith("CMAKE_BUILD_TYPE:"):
            return line.split("=", 1)[1] or "none"
    return "unknown"


def _version(program: str, *arguments) -> str:
    # nbd-server prints its version with status 0 only for -V.
    return _first_line(program, *arguments) or "not installed"


def describe(root: Path, programs: Path, directory: Path) -> dict:
    filesystem = _first_line("stat", "--file-system", "--format=%T", str(directory))
    return {
        "machine": f"{_cpu_model()}, {os.cpu_count()} CPUs, "
                   f"{memory_field('MemTotal') / 2**30:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "commit": commit_of(root),
        "build": build_type_of(programs),
        "data files": f"on {filesystem or 'unknown'}",
        "load average": " ".join(f"{value:.2f}" for value in os.getloadavg()),
        "peers": "; ".join([
            _version("nbdkit", "--version"),
            _version("qemu-nbd", "--version"),
            _version("nbd-server", "-V"),
        ]),
    }
