# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A job whose disk is behind NBD: what takes long is waited for, and whoever hangs is woken by a cancel."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from disks_in_memory import MemoryParts, MemorySource, PackedImage, Rules

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import ImageOutput
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd import source as nbd_source
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.sink import NbdSink
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.source import NbdSource
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.transport import Address
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.copy_blocks import CopyResult, copy_blocks
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.digests import DigestWriter
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.limits import Limits
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.pipeline import export_disk
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.progress import Progress
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.supervise import supervise
from rigs import nbd

SMALL = Limits(workers=2, window=1 << 18, part=1 << 20, part_budget=1 << 22)
MIB = 1 << 20


class Records:
    def update(self, snapshot: object) -> None:
        """Nobody reads it."""


def test_a_flush_may_take_longer_than_bytes_may_stand_still(tmp_path: Path) -> None:
    """The host wrote much faster than its disk: what it holds back is written now."""
    image = tmp_path / "disk"
    image.write_bytes(bytes(MIB))
    script = [
        f"get_size=stat -c %s {image}",
        f"pwrite=dd of={image} bs=64k oflag=seek_bytes seek=$4 conv=notrunc 2>/dev/null",
        f"flush=sleep 2; touch {tmp_path}/flushed",
    ]
    disk, flow, progress = os.urandom(MIB), Flow(), Progress({"importing": 1.0})
    with nbd.nbdkit("eval", *script) as path:
        sink = NbdSink(Address.unix(path), reads_zero=True, idle_timeout=1)
        progress.enter("importing", [progress.new_disk("disk", MIB)])

        def work() -> CopyResult:
            return copy_blocks(MemorySource(disk), sink, None, limits=SMALL, flow=flow, progress=progress.disk(0))

        assert supervise(flow, progress, Records(), work, idle_timeout=1).bytes_written == MIB
        assert (tmp_path / "flushed").exists()
        sink.write([(0, memoryview(disk)[:512])])  # the connection goes on, with the limit it had
        sink.close()
    assert image.read_bytes() == disk


@contextmanager
def server(tmp_path: Path, *words: str) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    socket = tmp_path / "nbd"
    with nbd.listening(nbd.nbdkit_command(f"--unix={socket}", words), str(socket)) as process:
        yield socket, process


def undone_after_cancel(flow: Flow, work: Callable[[], object]) -> float:
    """Seconds from the cancel until the job's undo has run. It must not be left to the end of the grace period."""
    undone: list[float] = []
    cancelled = threading.Timer(0.5, flow.request_cancel, ("SIGTERM",))
    started = time.monotonic()

    def undoing() -> None:
        try:
            work()
        finally:
            undone.append(time.monotonic() - started)

    cancelled.start()
    progress = Progress({"moving": 1.0})
    progress.enter("moving")
    with pytest.raises(VmferryError) as caught:
        supervise(flow, progress, Records(), undoing, grace=10)
    assert caught.value.kind == "cancelled"
    return undone[0] - 0.5


def exported(source: NbdSource, flow: Flow) -> Callable[[], object]:
    def make_image(output: ImageOutput, bound: int) -> PackedImage:
        return PackedImage(source.size, output, bound)

    def work() -> object:
        digests = DigestWriter(source.size, lambda data: None)
        return export_disk(source, make_image, MemoryParts(), digests, limits=SMALL, rules=Rules(), flow=flow)

    return work


def test_a_cancel_wakes_an_export_whose_source_hangs(tmp_path: Path) -> None:
    """One worker waits for an answer, the other for a greeting."""
    flow = Flow()
    with server(tmp_path, "pattern", "4M") as (socket, process):
        source = NbdSource(Address.unix(socket))
        extents = list(source.extents())
        source.extents = lambda: iter(extents)  # type: ignore[method-assign]
        process.send_signal(signal.SIGSTOP)
        try:
            assert undone_after_cancel(flow, exported(source, flow)) < 3
        finally:
            process.send_signal(signal.SIGCONT)


def test_a_cancel_wakes_an_export_that_asks_for_the_extents(tmp_path: Path) -> None:
    flow = Flow()
    with server(tmp_path, "pattern", "4M") as (socket, process):
        source = NbdSource(Address.unix(socket))
        process.send_signal(signal.SIGSTOP)
        try:
            assert undone_after_cancel(flow, exported(source, flow)) < 3
        finally:
            process.send_signal(signal.SIGCONT)


def test_a_cancel_ends_a_pause_between_two_tries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nbd_source, "FIRST_PAUSE", 30.0)
    flow = Flow()
    with server(tmp_path, "pattern", "4M") as (socket, process):
        source = NbdSource(Address.unix(socket))
        process.kill()
        assert undone_after_cancel(flow, exported(source, flow)) < 3


@pytest.mark.parametrize(
    "words",
    [
        ("--filter=delay", "memory", "4M", "wdelay=8"),
        ("eval", "get_size=echo 4M", "pwrite=cat > /dev/null", "flush=exec sleep 8"),
    ],
    ids=["write", "flush"],
)
def test_a_cancel_wakes_an_import_whose_target_hangs(tmp_path: Path, words: tuple[str, ...]) -> None:
    flow = Flow()
    with server(tmp_path, *words) as (socket, process):
        sink = NbdSink(Address.unix(socket), reads_zero=True)
        disk = MemorySource(os.urandom(MIB))
        taken = undone_after_cancel(flow, lambda: copy_blocks(disk, sink, None, limits=SMALL, flow=flow))
        assert taken < 3
        process.kill()  # it would finish its sleep first
