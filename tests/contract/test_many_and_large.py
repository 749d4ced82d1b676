# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only shows in numbers: more objects than any page of a listing has, and an object that 32 bits cannot address.

The slower one of two servers of a kind is left out: it is the same code that asks them. The emulators of Azure and of
Cloud Storage take minutes to be given so many; that their listings are read page by page is tested beside the rest of
what they answer (`test_azure_weather`, `test_gcs_weather`).
"""

from __future__ import annotations

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF

from .dav_rig import NginxDavRig
from .store_rigs import StoreRig

FAR = 5 << 30
SIZE = FAR + LEAF
FIRST, LAST = b"a" * LEAF, b"z" * LEAF


@pytest.mark.parametrize("rig", ["filesystem", "nfs", "s3", "nginx_dav", "rclone_dav"], indirect=True)
def test_ten_thousand_objects_are_listed_in_order(rig: StoreRig) -> None:
    store = rig.fresh()
    keys = [f"many/{number:05d} & <{number % 7}>" for number in range(10_000)]
    rig.add(store, keys[::-1])
    assert [info.key for info in store.list("many/")] == keys


@pytest.mark.parametrize("rig", ["filesystem", "wrapped", "nfs", "nginx_dav", "rclone_dav"], indirect=True)
def test_an_object_of_more_than_four_gib_is_read_at_both_ends(rig: StoreRig) -> None:
    """With a hole in its middle. A web server gets it behind the store's back: it would move all of the hole twice."""
    store = rig.fresh()
    if isinstance(rig, NginxDavRig):
        rig.add(store, ["large"])
        with (rig.folder(store) / "large").open("r+b") as file:
            file.write(FIRST)
            file.seek(FAR)
            file.write(LAST)
    else:
        writer = store.open_parts("large")
        writer.write_at(FAR, memoryview(LAST))
        writer.write_at(0, memoryview(FIRST))
        writer.complete([], SIZE)
    found = store.stat("large")
    assert found is not None
    assert found.size == SIZE
    head, tail = bytearray(LEAF + 1), bytearray(LEAF + 1)
    store.read_into("large", 0, memoryview(head))
    store.read_into("large", FAR - 1, memoryview(tail))
    assert (bytes(head), bytes(tail)) == (FIRST + b"\0", b"\0" + LAST)
