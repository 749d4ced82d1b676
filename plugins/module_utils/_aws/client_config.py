# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the clients of every service are configured with."""

from __future__ import annotations

from typing import Any, Dict, Mapping


def patience(connect_timeout: float, read_timeout: float) -> Dict[str, Any]:
    """In seconds; `read_timeout`: without a byte."""
    return {
        "connect_timeout": connect_timeout,
        "read_timeout": read_timeout,
        "tcp_keepalive": True,
        "user_agent_extra": "vmferry",
    }


def known_to(config: Any, wanted: Mapping[str, Any]) -> Dict[str, Any]:
    """botocore before 1.36 has no checksum settings, and adds none of the checksums that they turn off."""
    return {name: value for name, value in wanted.items() if name in config.OPTION_DEFAULTS}
