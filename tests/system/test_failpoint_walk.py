# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A full export of two large disks is killed in their midst, run again, restored and compared; nothing else is left."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from rigs import guests
from rigs.domain import Disk, Guest, Machine, define_and_start, remove_domain
from rigs.libvirt import LibvirtRig

from .conftest import small_disk
from .exports import MIB, Bench, compare
from .test_resume import kill

# Of these no provider knows anything; those that one does are walked in tests/contract/test_providers_killed.py.
GONE_ON_WITH = (
    "part-sent:3",
    "journal-written",
    "journal-closed",
    "window-delivered:15",  # in the second
    "token_kept",
)
IN_OBJECT_STORES_TOO = ("claimed", "resumable", "part-sent:2", "objects-complete:1", "manifest", "committed")
WALK = [("bench", point) for point in GONE_ON_WITH]
WALK += [("s3_bench", point) for point in IN_OBJECT_STORES_TOO]


@pytest.fixture(scope="module")
def pair(rig: LibvirtRig) -> Iterator[Guest]:
    """It runs, does nothing, and has two disks."""
    system, data = (rig.directory / f"pair{name}.qcow2" for name in ("", "-data"))
    small_disk(system, "pair", "qcow2")
    raw = data.with_suffix(".seed")
    raw.write_bytes(random.Random("pair").randbytes(18 * MIB))
    guests.place(raw, data, "qcow2")
    raw.unlink()
    guest = define_and_start(rig, Machine("pair", disks=(Disk(system), Disk(data)), memory_mib=32))
    guest.console.wait_for(guests.boot_marker("pair"))
    yield guest
    guest.destroy()
    for disk in (system, data):
        disk.unlink()


@pytest.mark.parametrize(("kind", "failpoint"), WALK)
def test_a_full_export_that_is_killed_anywhere_is_made_whole_by_the_next_run(
    kind: str, failpoint: str, pair: Guest, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench: Bench = request.getfixturevalue(kind)
    kill(bench, monkeypatch, failpoint, vm="pair")
    result = bench.export("pair")
    assert_gone_on(failpoint, result)
    restore_and_compare(bench, result)
    bench.assert_nothing_left("pair")


def assert_gone_on(failpoint: str, result: dict[str, Any]) -> None:
    if failpoint == "committed":
        assert (result["changed"], "resumed" in result) == (False, False)
        return
    resumed = result["resumed"]
    images = sum(disk["bytes_stored"] for disk in result["export"]["disks"])
    if failpoint == "claimed":
        assert (resumed["export"], "had not sent anything" in resumed["reason"]) == ("", True)
    else:
        assert (resumed["export"], resumed["reason"]) == (result["export"]["id"], "")
        assert resumed["bytes_kept"] + resumed["bytes_sent"] == images
    first = result["export"]["disks"][0]["bytes_stored"]
    if failpoint in ("objects-complete:1", "window-delivered:15"):
        assert resumed["bytes_kept"] >= first
    if failpoint in ("token_kept", "manifest"):
        assert resumed["bytes_sent"] == 0


def restore_and_compare(bench: Bench, result: dict[str, Any]) -> None:
    bench.import_("back", export=result["export"]["id"], placement={"disk_format": "raw"})
    remove_domain(bench.rig.connect().lookupByName("back"))
    for number, source in enumerate(("pair", "pair-data")):
        (restored,) = bench.images.glob(f"back-disk-{number}*")
        compare(restored, "raw", bench.rig.directory / f"{source}.qcow2", "qcow2")
