# SPDX-License-Identifier: Apache-2.0
#
# Brings the release build of what is measured up to date.

import subprocess
from pathlib import Path

from .servers import BenchError

ROOT = Path(__file__).resolve().parent.parent.parent
TARGETS = ["nbdload", "bare_server", "blocking_memory", "bare_store", "bare_log", "usbdsrvd"]


def _command(*given):
    words = [str(word) for word in given]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"{' '.join(words)} failed:\n{done.stdout[-2000:]}{done.stderr}")


def build_release() -> Path:
    """Returns the folder of the programs."""
    folder = ROOT / "build/release"
    if not (folder / "build.ninja").exists():
        _command("cmake", "--preset", "release")
    _command("cmake", "--build", folder, "--target", *TARGETS)
    return folder / "bin"
