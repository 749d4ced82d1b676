# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""On a bad day every store says in one sentence what failed and where, in a kind everybody knows, without a secret."""

from __future__ import annotations

import traceback
from collections.abc import Callable

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Part
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import RETRYABLE, VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store

from .store_rigs import MIB, RIGS, StoreRig

DATA = bytes(5 * MIB)


def write_parts(store: Store) -> None:
    writer = store.open_parts("vm/1/disk-0.qcow2")
    try:
        writer.write_part(Part(1, 0, len(DATA)), memoryview(DATA))
    finally:
        writer.abort()


def put(store: Store) -> None:
    store.put("vm/1/manifest.json", DATA)


CASES = [
    (each.name, trouble, write)
    for each in RIGS
    for trouble in each.troubles
    for write in (write_parts, put)
    if (trouble, write) != ("not_s3", put)  # the answer to a put has no body that could be anything
]


@pytest.mark.parametrize(("rig", "trouble", "write"), CASES, indirect=["rig"])
def test_writing_raises_the_kind_that_tells_what_to_do(
    rig: StoreRig, trouble: str, write: Callable[[Store], None]
) -> None:
    with rig.trouble(trouble) as store:
        with pytest.raises(VmferryError) as raised:
            write(store)
        error = raised.value
        text = "".join(traceback.format_exception(error))
        assert error.kind == rig.troubles[trouble]
        assert error.retryable is (error.kind in RETRYABLE)
        assert store.url in error.message or "bucket" in error.message
        assert error.message.endswith(".")
        assert error.hint
        assert not [secret for secret in rig.secrets if secret in text]


@pytest.mark.parametrize("rig", ["filesystem", "wrapped"], indirect=True)
def test_a_full_medium_keeps_nothing_of_what_did_not_fit(rig: StoreRig) -> None:
    with rig.trouble("full") as store:
        for write in (write_parts, put):
            with pytest.raises(VmferryError):
                write(store)
            assert rig.leftovers(store) == []


NO_ROOT = ["filesystem", "s3", "sloppy_s3", "azure", "gcs", "gcs_emulator", "nginx_dav", "rclone_dav"]


@pytest.mark.parametrize("rig", NO_ROOT, indirect=True)
def test_a_missing_root_is_not_an_empty_one(rig: StoreRig) -> None:
    with rig.trouble("missing_root" if "missing_root" in rig.troubles else "missing_bucket") as store:
        for call in (
            store.require_root,
            lambda: store.stat("vm"),
            lambda: list(store.list("")),
            lambda: list(store.list_folders("")),
        ):
            with pytest.raises(VmferryError) as raised:
                call()
            assert raised.value.kind == "not_found"
