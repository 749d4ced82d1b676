# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a store still keeps is kept by its own clock, however wrong this host's is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from rigs.fault_proxy import Fault, FaultProxy
from rigs.ports import free_port

KEYS = {"access_key": "AKIDEXAMPLE", "secret_key": "secret", "region": "us-east-1"}
STORES: dict[str, tuple[str, dict[str, Any]]] = {
    "s3": ("s3://bucket/a", KEYS),
    "azure": ("azblob://container/a", {"account_name": "account", "account_key": "c2VjcmV0"}),
    "gcs": ("gs://bucket/a", {"auth_kind": "anonymous"}),
}


@pytest.fixture
def server() -> Iterator[FaultProxy]:
    """All that it says, it is told."""
    proxy = FaultProxy(free_port())
    yield proxy
    proxy.close()


def answer(kind: str, now: datetime, until: datetime) -> Fault:
    headers = {"Date": format_datetime(now, usegmt=True), "ETag": '"1"', "Last-Modified": format_datetime(now, True)}
    if kind == "s3":
        headers["x-amz-object-lock-retain-until-date"] = until.strftime("%Y-%m-%dT%H:%M:%SZ")
    if kind == "azure":
        headers["x-ms-immutability-policy-until-date"] = format_datetime(until, usegmt=True)
        headers["x-ms-blob-type"] = "BlockBlob"
    told = {"size": "0", "generation": "1", "retentionExpirationTime": until.strftime("%Y-%m-%dT%H:%M:%SZ")}
    return Fault(answer=200, headers=headers, body=json.dumps(told).encode() if kind == "gcs" else b"")


@pytest.mark.parametrize(
    ("away", "left", "locked"),
    [(-400, 1, True), (400, -1, False)],
    ids=["a host that is ahead by a year", "a host that is behind by a year"],
)
@pytest.mark.parametrize("kind", list(STORES))
def test_whether_an_object_is_locked_is_decided_by_the_clock_of_its_store(
    kind: str, away: int, left: int, locked: bool, server: FaultProxy
) -> None:
    url, settings = STORES[kind]
    now = datetime.now(timezone.utc) + timedelta(days=away)
    server.fail_always(answer(kind, now, now + timedelta(days=left)))
    endpoint = f"{server.endpoint_url}/account" if kind == "azure" else server.endpoint_url
    info = open_store(url, {**settings, "endpoint_url": endpoint}).stat("vm/a")
    assert info is not None
    assert info.locked is locked
