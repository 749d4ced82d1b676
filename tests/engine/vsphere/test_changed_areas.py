# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What changed since a change id: all of it, however many answers it takes, and nothing that cannot be true."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.changed_areas import (
    EVERYTHING,
    ChangedAreas,
    TrackingLost,
    changed_areas,
)
from rigs.vsphere import Disk, VSphere

from .points import LEAF, Points, data_in

LEAVES = 40
SIZE = LEAVES * LEAF - 2 * LEAF + 1024  # the last block is a short one
KEY = 2000


class Told:
    """Plays the connection and the VM: answers with these, one after another."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.asked = list(answers), []

    def read(self, _doing: str, work: Callable[[Any], Any]) -> Any:
        return work(None)

    def QueryChangedDiskAreas(self, _snapshot: Any, _key: int, at: int, _since: str) -> Any:
        self.asked.append(at)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def areas(self, size: int = SIZE) -> ChangedAreas:
        return changed_areas(self, self, None, KEY, size, "id/1", "scsi0:0 of web01")  # type: ignore[arg-type]


def answer(start: int, length: int, *areas: tuple[int, int]) -> Any:
    found = [SimpleNamespace(start=at, length=many) for at, many in areas]
    return SimpleNamespace(startOffset=start, length=length, changedArea=found)


@pytest.fixture
def points(vcenter: VSphere, settings: dict[str, Any]) -> Iterator[Points]:
    opened = Points(vcenter, settings, [Disk(b"x", size=SIZE)])
    yield opened
    opened.close()
    vcenter.settings(page=4, star_is_whole=False)


def since(points: Points, snapshot: str, change_id: str) -> list[Extent]:
    taken = points.session.managed("VirtualMachineSnapshot", snapshot)
    return list(changed_areas(points.session, points.machine, taken, KEY, SIZE, change_id, "it").extents())


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    written=strategies.lists(
        strategies.tuples(strategies.integers(0, SIZE - 1), strategies.integers(1, 3 * LEAF)), max_size=12
    ),
    page=strategies.integers(1, 5),
)
def test_all_that_was_written_is_told_and_nothing_else(
    points: Points, written: list[tuple[int, int]], page: int
) -> None:
    points.vcenter.settings(page=page)
    before = points.take()
    touched = set()
    for offset, length in written:
        length = min(length, SIZE - offset)
        points.write(offset, b"\1" * length)
        touched |= set(range(offset // LEAF, (offset + length - 1) // LEAF + 1))
    extents = since(points, points.take().snapshot, before.disks["scsi0:0"].change_id)
    assert [extents[0].offset, extents[-1].end] == [0, SIZE]
    assert all(one.end == other.offset and one.kind != other.kind for one, other in zip(extents, extents[1:]))
    told = {leaf for at, length in data_in(extents) for leaf in range(at // LEAF, -(-(at + length) // LEAF))}
    assert told == touched


@pytest.mark.slow
def test_each_answer_begins_where_the_last_one_said_that_it_ended(points: Points) -> None:
    before = points.take()
    for leaf in range(0, LEAVES - 2, 2):
        points.write(leaf * LEAF, b"new")
    points.vcenter.forget_calls()
    extents = since(points, points.take().snapshot, before.disks["scsi0:0"].change_id)
    assert len(data_in(extents)) == (LEAVES - 2) // 2
    assert len(points.vcenter.calls("QueryChangedDiskAreas")) == 5, "19 areas, four in an answer"
    assert {call.ended for call in points.vcenter.calls("QueryChangedDiskAreas")} == {""}, "none of it at the end"


@pytest.mark.slow
def test_everything_is_what_was_ever_written_or_the_whole_disk(points: Points) -> None:
    points.write(9 * LEAF, b"more")
    taken = points.take()
    assert data_in(since(points, taken.snapshot, EVERYTHING)) == [(0, LEAF), (9 * LEAF, LEAF)]
    points.vcenter.settings(star_is_whole=True)
    assert data_in(since(points, taken.snapshot, EVERYTHING)) == [(0, SIZE)]


@pytest.mark.slow
def test_what_was_lost_is_said_in_the_words_of_vsphere(points: Points) -> None:
    before = points.take()
    points.vcenter.reset_tracking(points.moref)
    with pytest.raises(TrackingLost, match=r"vSphere does not tell any more what changed on it \(.*FileFault\)"):
        since(points, points.take().snapshot, before.disks["scsi0:0"].change_id)


@pytest.mark.slow
def test_privilege_that_is_missing_ends_no_export(points: Points) -> None:
    before = points.take()
    missing = "VirtualMachine.Provisioning.DiskRandomRead"
    points.vcenter.fault("QueryChangedDiskAreas", "fault", fault="NoPermission", missing=missing)
    with pytest.raises(TrackingLost, match=f"the privilege {missing} is missing"):
        since(points, points.take().snapshot, before.disks["scsi0:0"].change_id)


@pytest.mark.slow
def test_broken_connection_is_no_lost_tracking(points: Points) -> None:
    before = points.take()
    points.vcenter.fault("QueryChangedDiskAreas", "drop", times=1)
    assert data_in(since(points, points.take().snapshot, before.disks["scsi0:0"].change_id)) == []
    points.vcenter.fault("QueryChangedDiskAreas", "drop", times=2)
    with pytest.raises(VmferryError) as failed:
        since(points, points.take().snapshot, before.disks["scsi0:0"].change_id)
    assert (failed.value.kind, type(failed.value)) == ("network", VmferryError)


def test_areas_in_any_order_and_on_each_other_are_one_map() -> None:
    told = Told(answer(0, SIZE, (8 * LEAF, LEAF), (0, LEAF), (LEAF, LEAF), (LEAF, 3 * LEAF), (5 * LEAF, 0)))
    areas = told.areas()
    assert data_in(list(areas.extents())) == [(0, 4 * LEAF), (8 * LEAF, LEAF)]
    assert areas.bytes_changed == 5 * LEAF
    assert [one.kind for one in areas.extents("zero")] == ["data", "zero", "data", "zero"]


def test_answer_that_begins_earlier_than_asked_takes_nothing_back() -> None:
    told = Told(answer(0, 4 * LEAF, (3 * LEAF, LEAF)), answer(2 * LEAF, SIZE - 2 * LEAF, (2 * LEAF, 4 * LEAF)))
    assert data_in(list(told.areas().extents())) == [(3 * LEAF, 3 * LEAF)]
    assert told.asked == [0, 4 * LEAF]


@pytest.mark.parametrize(
    "answers",
    [
        [answer(0, 0)],
        [answer(0, -5)],
        [answer(LEAF, SIZE - LEAF)],
        [answer(-LEAF, SIZE)],
        [answer(0, SIZE + 1)],
        [answer(0, SIZE, (SIZE - 10, 11))],
        [answer(0, SIZE, (-1, 5))],
        [answer(0, SIZE, (5, -1))],
        [answer(0, 4 * LEAF, (4 * LEAF, LEAF))],
        [answer(0, 4 * LEAF), answer(0, 4 * LEAF)],
        [answer(0, 4 * LEAF), answer(5 * LEAF, SIZE - 5 * LEAF)],
    ],
)
def test_what_cannot_be_true_is_lost_tracking(answers: Sequence[Any]) -> None:
    with pytest.raises(TrackingLost, match="scsi0:0 of web01 cannot be true"):
        Told(*answers).areas()


def test_server_that_goes_on_by_single_bytes_is_not_asked_for_ever() -> None:
    told = Told(*(answer(at, 1) for at in range(1000)))
    with pytest.raises(TrackingLost, match="cannot be true: it gave"):
        told.areas()
    assert len(told.asked) <= LEAVES
