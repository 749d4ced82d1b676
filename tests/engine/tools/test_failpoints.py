# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every place where the process may be killed is one where a test kills it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_every_failpoint_is_named_by_a_test() -> None:
    code = "".join(path.read_text() for path in (ROOT / "plugins").rglob("*.py"))
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    names = set(re.findall(r"\bfailpoint\(\"([\w-]+)\"\)", code))
    assert len(names) > 10
    assert {name for name in names if not re.search(rf"\"{name}[:\"]", tests)} == set()
