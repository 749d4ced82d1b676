# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One of each request that an Azure store makes, and what they are called when they are seen on the wire."""

from __future__ import annotations

import random
from urllib.parse import parse_qs, urlsplit

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Part
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from rigs.fault_proxy import Request

from . import uploading

MIB = 1024 * 1024
IMAGE = random.Random(0).randbytes(6 * MIB)
PARTS = (Part(1, 0, 5 * MIB), Part(2, 5 * MIB, MIB))
EVERY_KIND = frozenset({"put", "part", "complete", "list", "head", "get", "delete"})
_COMPONENTS = {"block": "part", "blocklist": "complete", "list": "list"}


def exercise(store: Store) -> None:
    uploading.exercise(store, IMAGE, PARTS)


def upload(store: Store, key: str = "vm/disk-0.qcow2") -> None:
    writer, receipts = uploading.begun(store, key, IMAGE, PARTS)
    writer.complete(receipts, len(IMAGE))


def kind_of(request: Request) -> str:
    component = parse_qs(urlsplit(request.target).query).get("comp", [""])[0]
    return _COMPONENTS.get(component) or request.method.lower()


def sent_with(requests: list[Request], header: str) -> dict[str, set[str]]:
    """What each kind of request carried in `header`; an empty string stands for none."""
    seen: dict[str, set[str]] = {}
    for request in requests:
        seen.setdefault(kind_of(request), set()).add(request.headers.get(header, ""))
    return seen
