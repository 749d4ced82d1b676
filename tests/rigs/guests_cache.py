# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files built once per set of inputs, kept in ~/.cache/vmferry-tests (or $VMFERRY_TEST_CACHE) across runs.

Remove the directory to build everything again; nothing else refers to it.
"""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Callable, Sequence

KEY_DIGITS = 16


def cache_directory(name: str) -> Path:
    default = Path.home() / ".cache" / "vmferry-tests"
    directory = Path(os.environ.get("VMFERRY_TEST_CACHE", default)) / name
    directory.mkdir(parents=True, exist_ok=True)
    return directory.resolve()


def cached(name: str, build: Callable[[Path], None], inputs: Sequence[Path], *words: str) -> Path:
    """The file that `build` makes from `inputs`, `words` and the building code itself; built if not there yet."""
    recipe = Path(__file__).with_name("guests_build.py")
    key = hashlib.sha256("\0".join([name, *words]).encode())
    for path in [recipe, *inputs]:
        key.update(_digest(path, path.stat().st_mtime_ns))
    target = cache_directory("guests") / f"{key.hexdigest()[:KEY_DIGITS]}-{name}"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=target.parent) as directory:
            fresh = Path(directory) / name
            build(fresh)
            fresh.chmod(0o444)
            fresh.replace(target)  # another process may have built the same; either copy will do
    return target


@functools.cache
def _digest(path: Path, _modified: int) -> bytes:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
