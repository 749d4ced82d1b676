# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long Hypothesis searches. A counterexample is one on every Python, so the newest searches, and on an older one of
a host a third of it shows that the same code runs there."""

from __future__ import annotations

import sys

SEARCHES = sys.version_info >= (3, 11)  # what ansible-core's control nodes have


def examples(count: int) -> int:
    return count if SEARCHES else -(-count // 3)
