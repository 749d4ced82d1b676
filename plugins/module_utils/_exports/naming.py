# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names in a store. Whatever a provider calls a VM, the key made of it is one plain path segment."""

from __future__ import annotations

import re
import secrets
import unicodedata
from datetime import datetime, timezone

LONGEST_NAME = 80  # characters of a VM's name that a folder keeps
EXPORT_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")
_PLAIN = re.compile(r"[^A-Za-z0-9._-]+")


def new_attempt() -> str:
    """8 hex digits: one try at an export or import."""
    return secrets.token_hex(4)


def export_id(taken_at: float, attempt: str) -> str:
    """`20261121T063000Z-1a2b3c4d`: sorts by time, and no two tries share one."""
    return f"{datetime.fromtimestamp(taken_at, timezone.utc):%Y%m%dT%H%M%SZ}-{attempt}"


def attempt_of(export: str) -> str:
    """The last part of an export's id, or of its folder."""
    return export.rpartition("-")[2]


def vm_folder(name: str, uuid: str) -> str:
    """`web01-1f0c9a2b`. Stays readable, and differs for two VMs of one name."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = _PLAIN.sub("-", plain).strip(".-")[:LONGEST_NAME] or "vm"
    short = _PLAIN.sub("", uuid)[:8].lower() or "00000000"
    return f"{plain}-{short}"


def may_be_folder_of(vm: str, folder: str) -> bool:
    """Whether a VM of this name, or of this UUID, has its exports there, unless it was renamed."""
    name, _unused, short = folder.rpartition("-")
    return vm_folder(vm, "")[: -len("-00000000")] == name or vm_folder("x", vm)[2:] == short


def is_export_id(text: str) -> bool:
    return EXPORT_ID.fullmatch(text) is not None


def iso_time(seconds: float) -> str:
    """ISO 8601, UTC, whole seconds."""
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%dT%H:%M:%SZ}"


def parse_iso_time(text: str) -> float:
    """Seconds since the epoch; raises ValueError."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc).timestamp()
