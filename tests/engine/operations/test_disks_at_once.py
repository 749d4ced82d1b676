# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks that are slow streams are exported side by side, and all that is promised of one disk holds for several."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from several_disks import DATA, LEAF, Disk, SeveralDisks, export

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.running_job import RunningJob
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.failpoints import VARIABLE
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.limits import MIB, Limits

PATIENCE = 60.0  # seconds; nothing here takes a tenth of it


class Crowd:
    """Reads wait until `count` disks are being read."""

    def __init__(self, count: int) -> None:
        self._count, self._all, self._adding = count, threading.Event(), threading.Lock()
        self.begun: set[int] = set()

    def __call__(self, number: int) -> None:
        with self._adding:
            self.begun.add(number)
            if len(self.begun) == self._count:
                self._all.set()
        assert self._all.wait(PATIENCE)


def contents(export: Mapping[str, Any], folder: Path) -> list[bytes]:
    """As QEMU alone reads them."""
    found = []
    for disk in export["disks"]:
        raw, image = folder / "judged", disk["url"].removeprefix("file://")
        subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, str(raw)], check=True)
        found.append(raw.read_bytes()[: disk["size"]])
    return found


def files(folder: Path) -> list[Path]:
    return [path for path in (folder / "store").rglob("*") if path.is_file()]


def test_as_many_disks_are_under_way_as_their_session_wants_and_the_result_has_them_in_their_order(
    tmp_path: Path,
) -> None:
    crowd = Crowd(4)
    made = export(tmp_path, SeveralDisks(4, crowd), verify="content")["export"]
    assert crowd.begun == {0, 1, 2, 3}
    assert [disk["id"] for disk in made["disks"]] == ["disk-0", "disk-1", "disk-2", "disk-3"]
    assert contents(made, tmp_path) == list(DATA)


@pytest.mark.parametrize(("at_once", "parallel", "most"), [(1, None, 1), (2, None, 2), (4, 2, 2)])
def test_no_more_disks_are_under_way_than_the_session_wants_and_the_task_has_readers(
    tmp_path: Path, at_once: int, parallel: int | None, most: int
) -> None:
    begun: set[int] = set()
    highest = []
    looking = threading.Lock()
    provider = SeveralDisks(at_once, lambda number: look(number))

    def look(number: int) -> None:
        with looking:
            begun.add(number)
            ended = {int(path.name[5]) for path in files(tmp_path) if path.name.endswith(".digests")}
            highest.append(len(begun - ended))

    made = export(tmp_path, provider, parallel=parallel)["export"]
    assert begun == {0, 1, 2, 3}
    assert max(highest) <= most
    assert contents(made, tmp_path) == list(DATA)


def fail_where_others_wait(error: VmferryError) -> SeveralDisks:
    """Disk 2 breaks when all are being read; the others stand still until they are closed."""
    crowd = Crowd(4)

    def before(number: int) -> None:
        crowd(number)
        if number == 2:
            raise error
        assert provider.disks[number].closed.wait(PATIENCE)
        raise VmferryError("network", f"disk-{number} was closed.", retryable=True)

    provider = SeveralDisks(4, before)
    return provider


@pytest.mark.parametrize("kind", ["network", "permission_denied"])
def test_the_first_error_ends_all_disks_is_the_one_that_is_told_and_nothing_of_any_stays(
    tmp_path: Path, kind: Any
) -> None:
    provider = fail_where_others_wait(VmferryError(kind, "disk-2 broke.", retryable=kind == "network"))
    with pytest.raises(VmferryError, match="disk-2 broke") as caught:
        export(tmp_path, provider, on_failure="undo")
    assert caught.value.kind == kind
    assert files(tmp_path) == []


def test_a_cancel_ends_all_disks_and_nothing_of_any_stays(tmp_path: Path) -> None:
    jobs: list[RunningJob] = []
    crowd = Crowd(4)

    def before(number: int) -> None:
        crowd(number)
        jobs[0].flow.request_cancel("somebody said so")
        assert provider.disks[number].closed.wait(PATIENCE)
        raise VmferryError("network", f"disk-{number} was closed.")

    provider = SeveralDisks(4, before)
    with pytest.raises(VmferryError, match="somebody said so") as caught:
        export(tmp_path, provider, jobs.append, on_failure="undo")
    assert caught.value.kind == "cancelled"
    assert files(tmp_path) == []


def test_what_a_failure_of_one_disk_leaves_of_all_is_gone_on_with(tmp_path: Path) -> None:
    provider = fail_where_others_wait(VmferryError("network", "disk-2 broke.", retryable=True))
    with pytest.raises(VmferryError) as caught:
        export(tmp_path, provider)
    made = export(tmp_path, SeveralDisks(4, Crowd(4)))
    assert made["resumed"]["export"] == caught.value.done["kept"]["export"] == made["export"]["id"]
    assert contents(made["export"], tmp_path) == list(DATA)
    assert not [path for path in files(tmp_path) if path.suffix == ".part"]


@pytest.mark.parametrize("point", ["all-begun:4", "window-delivered:2", "objects-complete:1"])
def test_an_export_that_is_killed_with_several_disks_under_way_is_gone_on_with(tmp_path: Path, point: str) -> None:
    program = [sys.executable, str(Path(__file__).with_name("several_disks.py")), str(tmp_path), "4"]
    ended = subprocess.run(program, env={**os.environ, VARIABLE: point}, check=False, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    made = export(tmp_path, SeveralDisks(4))
    assert made["resumed"]["export"] == made["export"]["id"]
    assert contents(made["export"], tmp_path) == list(DATA)
    assert not [path for path in files(tmp_path) if path.suffix == ".part"]


def test_a_parent_that_does_not_fit_one_disk_ends_the_increment_and_the_full_reads_all_of_them(tmp_path: Path) -> None:
    """A disk that changed where nothing said so is found while others are still being read: they stay open."""
    first = export(tmp_path, SeveralDisks(4, changes={}))["export"]
    found = threading.Event()

    def before(number: int) -> None:
        if number == 0 and not found.is_set():  # the one that is really read for the increment
            assert found.wait(PATIENCE)

    provider = SeveralDisks(4, before, changes={0: [Extent(0, len(DATA[0]), "data")]})
    provider.data[1] = b"x" + DATA[1][1:]

    def watch(job: RunningJob) -> None:
        stop = job.flow.stop

        def stopped(error: BaseException) -> None:
            stop(error)
            found.set()

        job.flow.stop = stopped  # type: ignore[method-assign]

    second = export(tmp_path, provider, watch, spot_check=64)["export"]
    assert (first["mode"], second["mode"]) == ("full", "full")
    assert "disk-1 changed, and its change tracking did not say so" in second["fell_back"]
    assert contents(second, tmp_path) == provider.data


def test_disks_that_are_read_in_turns_have_all_the_memory_and_those_at_once_share_it() -> None:
    for any_offset in (True, False):
        limits = Limits.of_transfer(any_offset, workers=4)
        for count in (2, 3, 4):
            one = limits.beside(count)
            assert count * one.workers * one.window <= limits.workers * limits.window
            assert count * one.part_budget <= limits.part_budget
            assert one.workers >= 2
            assert not one.window % LEAF
            assert not one.part % LEAF
            assert one.part <= limits.part


class Rules:
    """Of S3."""

    def __init__(self, joins_pieces: bool = True, min_part: int = 5 * MIB) -> None:
        self.max_parts, self.min_part, self.max_part, self.max_object = 10_000, min_part, 5 << 30, 5 << 40
        self.joins_pieces = joins_pieces


def test_as_many_disks_are_under_way_as_the_least_parts_of_their_store_leave_memory_for() -> None:
    limits, small, large = Limits.of_transfer(False, workers=2), 10 << 30, 2 << 40
    assert Limits.of_transfer(True, workers=2).disks_at_once([large] * 8, Rules()) == 8, "files take no parts"
    count = limits.disks_at_once([small] * 8, Rules())
    assert count == 4
    assert limits.disks_at_once([large] * 8, Rules()) == count, "large parts are sent in pieces"
    assert limits.disks_at_once([small] * 8, Rules(min_part=1)) == 8
    assert limits.disks_at_once([large, small, small], Rules(joins_pieces=False, min_part=1)) == 1
    assert limits.cut_in(12 * MIB).disks_at_once([small] * 8, Rules()) == 1, "their size was asked for"


def test_a_disk_in_memory_is_no_disk_that_was_closed() -> None:
    """Or the tests above would see nothing of a source that is used behind its end."""
    disk = Disk(0, b"abc", lambda number: None)
    disk.close()
    with pytest.raises(AssertionError, match="it was closed"):
        disk.read_into([(0, memoryview(bytearray(3)))])
