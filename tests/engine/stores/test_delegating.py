# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A wrapper hands on every call: one that it forgot would be answered by what a store does that can do nothing."""

from __future__ import annotations

import pytest
from contract.patience import Patience

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import FileWriter, PartWriter, PieceWriter
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.delegating import DelegatingParts, DelegatingStore
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.retrying import RetryingStore

OF_OTHERS = {"get"}  # made of `read_whole`, which is handed on


def members(*kinds: type) -> set[str]:
    return {name for kind in kinds for name in vars(kind) if not name.startswith("_")}


@pytest.mark.parametrize(
    ("wrapper", "wrapped"),
    [(DelegatingStore, (Store,)), (DelegatingParts, (PartWriter, FileWriter, PieceWriter))],
    ids=["store", "writer"],
)
def test_every_member_is_handed_on(wrapper: type, wrapped: tuple[type, ...]) -> None:
    assert members(*wrapped) - OF_OTHERS == members(wrapper)


def test_a_wrapped_store_names_an_object_as_the_store_itself_does() -> None:
    store = open_store("http://127.0.0.1:9/exports", {})
    wrapped = RetryingStore(store, Patience())
    assert wrapped.object_url("ä b#1") == store.object_url("ä b#1") == "http://127.0.0.1:9/exports/%C3%A4%20b%231"
    assert wrapped.innermost is store
