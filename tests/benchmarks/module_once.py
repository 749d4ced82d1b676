# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of a module, whole process and all: `module_once.py storage_upload ARGUMENTS_FILE`."""

from __future__ import annotations

import json
import re
import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".build"))


def main(name: str, arguments: str) -> None:
    module = import_module(f"ansible_collections.vmferry.migrate.plugins.modules.{name}")
    sys.argv = [name, arguments]
    try:
        module.main()
    finally:
        print(json.dumps({"peak_rss": peak_memory(), "written": written_to_files()}))


def peak_memory() -> int:
    """Of this program alone; `ru_maxrss` would also count what its parent held when it forked."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found.group(1)) * 1024


def written_to_files() -> int:
    """Bytes that this program alone sent to any medium; what it sent over a network is not of these."""
    found = re.search(r"^write_bytes: (\d+)", Path("/proc/self/io").read_text(), re.MULTILINE)
    assert found is not None
    return int(found.group(1))


if __name__ == "__main__":
    main(*sys.argv[1:])
