# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One of each request that a Cloud Storage store makes, and what they are called when they are seen on the wire."""

from __future__ import annotations

import random
from urllib.parse import parse_qs, urlsplit

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Part
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from rigs.fault_proxy import Request

from . import uploading
from .store_rigs import MIB

IMAGE = random.Random(0).randbytes(3 * MIB)
PARTS = (Part(1, 0, 2 * MIB), Part(2, 2 * MIB, MIB))
EVERY_KIND = frozenset({"insert", "compose", "list", "look", "read", "delete"})


def exercise(store: Store) -> None:
    uploading.exercise(store, IMAGE, PARTS)


def query_of(request: Request) -> dict[str, str]:
    query = parse_qs(urlsplit(request.target).query, keep_blank_values=True)
    return {name: values[0] for name, values in query.items()}


def kind_of(request: Request) -> str:
    path = urlsplit(request.target).path
    if request.method == "POST":
        return "insert" if path.startswith("/upload/") else "compose"
    if request.method == "DELETE":
        return "delete"
    if path.startswith("/download/"):
        return "read"
    return "list" if path.endswith("/o") else "look"


def asked_with(requests: list[Request], parameter: str) -> dict[str, set[str]]:
    """What each kind of request said for `parameter`; an empty string stands for nothing."""
    seen: dict[str, set[str]] = {}
    for request in requests:
        seen.setdefault(kind_of(request), set()).add(query_of(request).get(parameter, ""))
    return seen


def tokens_of(requests: list[Request]) -> set[str]:
    return {request.headers.get("authorization", "").removeprefix("Bearer ") for request in requests}
