# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Flat files of datastores are read by ranges, where the server gives them; what it gives otherwise is not taken."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere import flat_disk
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.disk_servers import (
    DiskConnection,
    DiskServers,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.flat_disk import FlatDisk, flat_url
from rigs.vsphere import Disk, VSphere

from .points import LEAF, Points

MIB = 1 << 20
SIZE = 3 * MIB + 1024
NOISE = Random(11).randbytes(SIZE)
GET = "GET /folder/"


class Counting(DiskServers):
    opened = 0

    def connect(self, url: str, thumbprint: str = "") -> Any:
        self.opened += 1
        return super().connect(url, thumbprint)


class Bench:
    def __init__(self, points: Points) -> None:
        self.points, self.vcenter = points, points.vcenter
        self.servers = Counting(points.settings, points.session)
        self.pauses: list[float] = []

    def disk(self, size: int = SIZE, retries: int = 3) -> FlatDisk:
        url = flat_url(self.points.vm(), f"[LocalDS_0] {self.points.name}/{self.points.name}.vmdk")
        sleep = self.pauses.append
        return FlatDisk(self.servers, self.points.session, url, size, "scsi0:0 of it", retries=retries, sleep=sleep)

    def ranges(self) -> list[str]:
        return [call.argument for call in self.vcenter.calls(GET)]


@pytest.fixture
def bench(vcenter: VSphere, settings: dict[str, Any]) -> Iterator[Bench]:
    points = Points(vcenter, settings, [Disk(NOISE)])
    points.take()
    vcenter.forget_calls()
    yield Bench(points)
    points.close()
    vcenter.settings(folder_ranges=True, locked_flats="active")


def read(disk: FlatDisk, *places: tuple[int, int]) -> list[bytes]:
    buffers = [bytearray(length) for _offset, length in places]
    disk.read_into([(offset, memoryview(buffer)) for (offset, _length), buffer in zip(places, buffers)])
    return [bytes(buffer) for buffer in buffers]


@pytest.mark.slow
def test_base_of_a_running_vm_is_read_as_it_was_by_several_threads_over_few_connections(bench: Bench) -> None:
    disk = bench.disk()
    bench.points.write(0, b"written later")
    assert disk.probe() == ""
    assert [(one.offset, one.length, one.kind) for one in disk.extents()] == [(0, SIZE, "data")]
    starts = list(range(0, SIZE, 5 * LEAF // 2))
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda at: read(disk, (at, min(5 * LEAF // 2, SIZE - at)))[0], starts))
    assert b"".join(found) == NOISE
    assert bench.servers.opened <= 3
    disk.close()


@pytest.mark.slow
def test_what_lies_close_together_is_asked_for_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = bench.disk()
    places = [(2 * MIB, 100), (0, LEAF), (LEAF, LEAF), (3 * LEAF, 10)]
    assert read(disk, *places) == [NOISE[at : at + length] for at, length in places]
    assert bench.ranges() == [f"bytes=0-{3 * LEAF + 9}", f"bytes={2 * MIB}-{2 * MIB + 99}"]
    bench.vcenter.forget_calls()
    monkeypatch.setattr(flat_disk, "LARGEST", MIB)
    assert read(disk, (512, 2 * MIB + 5)) == [NOISE[512 : 2 * MIB + 517]]
    assert bench.ranges() == [
        f"bytes=512-{MIB + 511}",
        f"bytes={MIB + 512}-{2 * MIB + 511}",
        f"bytes={2 * MIB + 512}-{2 * MIB + 516}",
    ]
    disk.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings_of_server", "said"),
    [
        ({"folder_ranges": False}, "gives no ranges of the flat file of scsi0:0 of it, but all of it"),
        ({"locked_flats": "running"}, "it answered 500"),
    ],
)
def test_probe_tells_why_it_does_not_work(bench: Bench, settings_of_server: dict[str, Any], said: str) -> None:
    bench.vcenter.settings(**settings_of_server)
    disk = bench.disk()
    assert said in disk.probe()
    disk.close()


@pytest.mark.slow
def test_file_of_another_size_is_not_the_disk(bench: Bench) -> None:
    for size in (SIZE - 512, SIZE + 512):
        disk = bench.disk(size)
        assert f"answered with bytes 0-511/{SIZE} of the flat file" in disk.probe()
        with pytest.raises(VmferryError) as refused:
            read(disk, (0, 512))
        assert (refused.value.kind, bench.pauses) == ("conflict", [])
        disk.close()


@pytest.mark.slow
def test_file_that_is_not_there_is_not_asked_for_again(bench: Bench) -> None:
    url = flat_url(bench.points.vm(), "[LocalDS_0] nowhere/nothing.vmdk")
    disk = FlatDisk(bench.servers, bench.points.session, url, SIZE, "it", sleep=bench.pauses.append)
    with pytest.raises(VmferryError) as missing:
        read(disk, (0, 512))
    assert (missing.value.kind, bench.pauses) == ("not_found", [])


@pytest.mark.slow
@pytest.mark.parametrize(
    "trouble",
    [
        {"action": "status", "status": 503, "times": 2},
        {"action": "truncate", "bytes": 1000, "times": 2},
        {"action": "truncate", "bytes": 0, "times": 2},
    ],
)
def test_reads_that_fail_are_made_again_whole(bench: Bench, trouble: dict[str, Any]) -> None:
    disk = bench.disk()
    read(disk, (0, 10))
    bench.vcenter.fault(GET, **trouble)
    assert read(disk, (LEAF, MIB)) == [NOISE[LEAF : LEAF + MIB]]
    assert len(bench.pauses) == 2
    disk.close()


@pytest.mark.slow
def test_retries_come_to_an_end(bench: Bench) -> None:
    bench.vcenter.fault(GET, "status", status=500, times=-1)
    with pytest.raises(VmferryError) as failed:
        read(bench.disk(retries=2), (0, 10))
    assert (failed.value.kind, failed.value.retryable, len(bench.pauses)) == ("busy", True, 2)


@pytest.mark.slow
def test_session_that_ended_meanwhile_is_begun_again(bench: Bench) -> None:
    disk = bench.disk()
    read(disk, (0, 10))
    bench.vcenter.expire_sessions()
    assert read(disk, (10, 10)) == [NOISE[10:20]]
    bench.vcenter.expire_sessions()
    assert disk.probe() == ""
    disk.close()


@pytest.mark.slow
def test_close_ends_reads_that_are_under_way(bench: Bench) -> None:
    disk = bench.disk()
    bench.vcenter.fault(GET, "slow", rate=1000)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            read(disk, (0, MIB))
        except VmferryError as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while not disk._lent:
        thread.join(0.01)
    disk.close()
    thread.join(60)
    assert [error.kind for error in failed if isinstance(error, VmferryError)] == ["cancelled"]
    with pytest.raises(VmferryError, match="were closed"):
        read(disk, (0, 10))


@pytest.mark.slow
def test_close_ends_the_last_answer_of_a_connection_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """http.client lets go of the socket where the server says that it will close, and the answer alone has it then."""
    disk, answered = bench.disk(), threading.Event()
    answer = DiskConnection.getresponse

    def last(connection: Any) -> Any:
        found = answer(connection)
        connection.sock = None
        answered.set()
        return found

    monkeypatch.setattr(DiskConnection, "getresponse", last)
    bench.vcenter.fault(GET, "slow", rate=10_000)
    failed: list[str] = []

    def work() -> None:
        try:
            read(disk, (0, MIB))
        except VmferryError as error:
            failed.append(error.kind)

    thread = threading.Thread(target=work)
    thread.start()
    assert answered.wait(60)
    disk.close()
    thread.join(20)
    assert failed == ["cancelled"]


@pytest.mark.parametrize(
    ("path", "datacenter", "expected"),
    [
        ("/DC0/vm/web", "DC0", "dcPath=DC0&dsName=LUN+1"),
        ("/Europe/DC%2f1/vm/Prod/web", "DC/1", "dcPath=Europe%2FDC%252f1&dsName=LUN+1"),
        ("/vm/vm/vm", "vm", "dcPath=vm&dsName=LUN+1"),
        ("/DC0/web", "DC0", ""),
        ("/web", "", ""),
    ],
)
def test_flat_file_is_named_with_its_datacenter(path: str, datacenter: str, expected: str) -> None:
    vm: Any = SimpleNamespace(path=path, details={"datacenter": datacenter})
    url = flat_url(vm, "[LUN 1] web #1/web.vmdk")
    assert url == (f"https://*/folder/web%20%231/web-flat.vmdk?{expected}" if expected else "")
    assert flat_url(vm, "web.vmdk") == ""
