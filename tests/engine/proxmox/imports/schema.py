# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The schema of Proxmox VE's own API, asked in a process of a Python that it runs with: hosts may have an older one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from rigs.proxmox.server import interpreter

_ANSWERS = """
import json, sys
from fakepve import schema
known = schema.load()
for line in sys.stdin:
    method, path, values = json.loads(line)
    found = known.match(path)
    wrong = schema.validate(found.methods[method]["parameters"], {**found.params, **values})[1]
    print(json.dumps(wrong or {}), flush=True)
"""


def wrong_parameters(method: str, path: str, values: Mapping[str, Any]) -> dict[str, str]:
    """What Proxmox VE refuses of a call, by parameter."""
    asked = _process()
    assert asked.stdin is not None
    assert asked.stdout is not None
    asked.stdin.write(json.dumps([method, path, values]) + "\n")
    asked.stdin.flush()
    found: dict[str, str] = json.loads(asked.stdout.readline())
    return found


@lru_cache(maxsize=1)
def _process() -> subprocess.Popen[str]:
    """It ends with its input, and that with this process."""
    return subprocess.Popen([interpreter(), "-c", _ANSWERS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
