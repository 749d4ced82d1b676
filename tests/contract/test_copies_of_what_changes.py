# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy by a server is of the object that was looked at, also where the server keeps no condition; and it is ours
although its answer was lost.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.retrying import RetryingStore
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.s3 import copy as s3_copy
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.s3.parts import S3Parts
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.server_copy import CopyOrder
from rigs.fault_proxy import Fault

from .azure_rig import AzureRig
from .gcs_rig import GcsRig, refusal
from .patience import Patience
from .store_rigs import MIB, S3Rig

Result = TypeVar("Result")
DATA = random.Random(7).randbytes(6 * MIB)
NOTED = {"vmferry-sha256": "0" * 64}
each_bucket = pytest.mark.parametrize("rig", ["s3", "sloppy_s3", "azure", "gcs", "gcs_emulator"], indirect=True)
each_s3 = pytest.mark.parametrize("rig", ["s3", "sloppy_s3"], indirect=True)


@each_bucket
def test_what_was_replaced_is_not_copied_and_is_given_no_notes(rig: S3Rig) -> None:
    store = rig.fresh()
    store.put("a", b"one of ours")
    info = store.stat("a")
    assert info is not None
    store.put("a", b"another one")
    with pytest.raises(VmferryError) as copied:
        store.copy_within(store, CopyOrder(info, "b", NOTED))
    assert copied.value.kind == "conflict"
    assert store.stat("b") is None
    with pytest.raises(VmferryError) as noted:
        store.replace_metadata(info, NOTED)
    assert noted.value.kind == "conflict"
    now = store.stat("a")
    assert now is not None
    assert now.metadata == {}


@each_s3
def test_an_object_that_is_replaced_while_parts_of_it_are_copied_is_no_mixture(
    rig: S3Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_copy, "AT_ONCE", 5 * MIB)
    store, copy_part, done = rig.fresh(), S3Parts.copy_part, []
    store.put("a", DATA)
    info = store.stat("a")
    assert info is not None

    def meanwhile(self: S3Parts, *what: Any) -> str:
        told = copy_part(self, *what)
        if not done:
            done.append(store.put("a", DATA[::-1]))
        return told

    monkeypatch.setattr(S3Parts, "copy_part", meanwhile)
    with pytest.raises(VmferryError) as raised:
        store.copy_within(store, CopyOrder(info, "b", NOTED))
    assert (bool(done), raised.value.kind) == (True, "conflict")
    assert rig.leftovers(store) == ["a"]


@each_s3
def test_what_was_copied_in_one_call_behind_a_replacement_is_removed(
    rig: S3Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, copied, done = rig.fresh(), s3_copy._copied, []
    store.put("a", DATA)
    info = store.stat("a")
    assert info is not None

    def meanwhile(*what: Any) -> Any:
        told = copied(*what)
        done.append(store.put("a", DATA[::-1]))
        return told

    monkeypatch.setattr(s3_copy, "_copied", meanwhile)
    with pytest.raises(VmferryError) as raised:
        store.copy_within(store, CopyOrder(info, "b", NOTED))
    assert (bool(done), raised.value.kind) == (True, "conflict")
    assert rig.leftovers(store) == ["a"]


def test_a_copy_to_where_nothing_was_is_ours_although_azures_answer_was_lost(azure: AzureRig) -> None:
    azure.proxy.reset()
    bare = azure.open(endpoint_url=azure.endpoint_url)
    bare.put("a", DATA)
    info = bare.stat("a")
    assert info is not None
    azure.proxy.fail_next(Fault(method="PUT", path="/b", lose_answer=True))
    copied = RetryingStore(bare, Patience()).copy_within(bare, CopyOrder(info, "b", NOTED, if_absent=True))
    azure.proxy.reset()
    assert copied is not None
    assert bare.get("b", len(DATA)) == DATA


@pytest.mark.parametrize("of_another", [False, True])
def test_a_copy_to_where_nothing_was_is_ours_although_the_answer_of_cloud_storage_was_lost(
    gcs: GcsRig, of_another: bool
) -> None:
    """The emulator copies on no condition, so the refusal of the second request is the proxy's."""
    gcs.proxy.reset()
    bare = gcs.open(endpoint_url=gcs.proxy.endpoint_url)
    bare.put("a", DATA)
    info = bare.stat("a")
    assert info is not None
    refused = replace(refusal(412, "conditionNotMet"), method="POST", path="rewriteTo")

    class Meanwhile(Patience):
        def call(self, function: Callable[..., Result], *args: Any) -> Result:
            try:
                return function(*args)
            except VmferryError as error:
                if not error.retryable:
                    raise
                if of_another:
                    bare.put("b", DATA[::-1], metadata=NOTED)
                return function(*args)

    gcs.proxy.fail_next(Fault(method="POST", path="rewriteTo", lose_answer=True), refused)
    target, order = RetryingStore(bare, Meanwhile()), CopyOrder(info, "b", NOTED, if_absent=True)
    if of_another:
        with pytest.raises(VmferryError) as raised:
            target.copy_within(bare, order)
        assert raised.value.kind == "conflict"
        assert bare.get("b", len(DATA)) == DATA[::-1]
    else:
        copied = target.copy_within(bare, order)
        assert copied is not None
        assert bare.get("b", len(DATA)) == DATA
    gcs.proxy.reset()
