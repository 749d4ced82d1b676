# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad weather that is the same for every service with buckets: busy servers, broken connections, nobody there."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Part
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.limited import LimitedStore
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.retrying import RetryingStore
from rigs.black_hole import black_hole
from rigs.fault_proxy import Fault, FaultProxy

from .azure_rig import answer
from .patience import Meter, Patience
from .store_rigs import MIB
from .uploading import upload

AFTER = {"Retry-After": "7"}
BUSY = answer(503, "ServerBusy")
SLOW_DOWN = {
    "s3": Fault(answer=503, body=b"<Error><Code>SlowDown</Code></Error>", headers=AFTER),
    "azure": Fault(answer=503, body=BUSY.body, headers={**BUSY.headers, **AFTER}),
    "gcs": Fault(answer=503, headers=AFTER),
}
KEY = "vm/1/disk-0.qcow2"
DATA = random.Random(0).randbytes(6 * MIB)
PARTS = [Part(1, 0, 5 * MIB), Part(2, 5 * MIB, MIB)]

pytestmark = pytest.mark.parametrize("rig", ["s3", "azure", "gcs"], indirect=True)


@pytest.fixture
def proxy(rig: Any) -> FaultProxy:
    rig.proxy.reset()
    return rig.proxy


@pytest.fixture
def slow_down(rig: Any) -> Fault:
    return SLOW_DOWN[rig.name]


@pytest.fixture
def sends(rig: Any) -> str:
    """The method by which bytes are sent."""
    return "POST" if rig.name == "gcs" else "PUT"


def at(rig: Any, address: str) -> str:
    return f"{address}/{rig.server.account}" if rig.name == "azure" else address


@pytest.fixture
def bare(rig: Any, proxy: FaultProxy) -> Store:
    return rig.open(endpoint_url=at(rig, proxy.endpoint_url), read_timeout=20)


@pytest.fixture
def store(bare: Store, patience: Patience) -> Store:
    return RetryingStore(bare, patience)


def test_503_for_a_while_is_ridden_out(store: Store, proxy: FaultProxy, patience: Patience, slow_down: Fault) -> None:
    proxy.fail_next(slow_down, slow_down, slow_down)
    upload(store, KEY, DATA, PARTS)
    assert patience.kinds == ["rate_limited"] * 3
    assert [error.retry_after for error in patience.errors] == [7.0] * 3


def test_503_for_ever_fails_after_the_last_attempt(store: Store, proxy: FaultProxy, slow_down: Fault) -> None:
    proxy.fail_always(slow_down)
    with pytest.raises(VmferryError) as raised:
        store.put("vm/a", b"x")
    assert (raised.value.kind, len(proxy.requests)) == ("rate_limited", 4)


def test_a_listing_goes_on_after_a_failure(
    store: Store, proxy: FaultProxy, patience: Patience, slow_down: Fault
) -> None:
    for name in "abc":
        store.put(f"vm/{name}", b"x")
    proxy.fail_next(slow_down)
    assert [info.key for info in store.list("")] == ["vm/a", "vm/b", "vm/c"]
    proxy.fail_next(slow_down)
    assert list(store.list_folders("")) == ["vm"]
    assert patience.kinds == ["rate_limited"] * 2


def test_a_connection_reset_in_a_part_is_ridden_out(
    rig: Any, store: Store, proxy: FaultProxy, patience: Patience, sends: str
) -> None:
    proxy.fail_next(Fault(method=sends, reset_after=2 * MIB), Fault(method=sends, reset_after=0))
    upload(store, KEY, DATA, PARTS)
    assert patience.kinds == ["network", "network"]
    assert rig.leftovers(store) == [KEY]


def test_what_is_sent_again_is_limited_again(bare: Store, proxy: FaultProxy, sends: str) -> None:
    meter = Meter()
    proxy.fail_next(Fault(method=sends, reset_after=0))
    upload(RetryingStore(LimitedStore(bare, meter), Patience()), KEY, DATA, PARTS)
    assert meter.taken == len(DATA) + PARTS[0].size + len(DATA)


def test_a_conditional_put_whose_answer_was_lost_is_ours(
    store: Store, proxy: FaultProxy, patience: Patience, sends: str
) -> None:
    proxy.fail_next(Fault(method=sends, lose_answer=True))
    store.put("vm/lease", b"owner 1", if_absent=True)
    assert patience.kinds == ["network"]
    with pytest.raises(VmferryError) as raised:
        store.put("vm/lease", b"owner 2", if_absent=True)
    assert raised.value.kind == "conflict"
    assert store.get("vm/lease") == b"owner 1"


def test_a_connection_that_is_not_answered_is_given_up_after_connect_timeout(rig: Any) -> None:
    with black_hole() as port:
        store = rig.open(endpoint_url=at(rig, f"http://127.0.0.1:{port}"), connect_timeout=1.0)
        started = time.monotonic()
        with pytest.raises(VmferryError) as raised:
            store.put("vm/a", b"x")
    assert 1.0 <= time.monotonic() - started < 5
    assert (raised.value.kind, raised.value.retryable) == ("timeout", True)
    assert f"127.0.0.1:{port}" in raised.value.message
