# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One of each request that an S3 store makes, and what they are called when they are seen on the wire."""

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
EVERY_KIND = frozenset({"put", "create", "part", "complete", "list", "head", "get", "delete"})


def exercise(store: Store) -> None:
    uploading.exercise(store, IMAGE, PARTS)


def kind_of(request: Request) -> str:
    query = parse_qs(urlsplit(request.target).query, keep_blank_values=True)
    if request.method == "GET":
        return "list" if "list-type" in query else "get"
    if request.method == "POST":
        return "create" if "uploads" in query else "complete"
    if request.method == "PUT":
        return "part" if "partNumber" in query else "put"
    return request.method.lower()


def sent_with(requests: list[Request], header: str) -> dict[str, set[str]]:
    """What each kind of request carried in `header`; an empty string stands for none."""
    seen: dict[str, set[str]] = {}
    for request in requests:
        seen.setdefault(kind_of(request), set()).add(request.headers.get(header, ""))
    return seen


def access_key_of(request: Request) -> str:
    return _scope(request)[0]


def region_of(request: Request) -> str:
    return _scope(request)[2]


def _scope(request: Request) -> list[str]:
    """Access key, day, region, service: https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-auth-using-authorization-header.html"""
    _unused, _also_unused, rest = request.headers["authorization"].partition("Credential=")
    return rest.split(",")[0].split("/")
