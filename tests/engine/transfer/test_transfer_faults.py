# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong in one thread stops them all, is told as it was, and leaves no thread behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Callable, Iterator

import pytest
from disks_in_memory import Gate, MemoryParts, MemorySink, MemorySource, PackedImage, Rules

from ansible_collections.vmferry.migrate.plugins import module_utils
from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, BlockSource, ImageOutput, PartWriter
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.buffers import Buffers
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.copy_blocks import copy_blocks
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.digests import DigestWriter
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow, Stopped, Turns
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.limits import Limits
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.pipeline import export_disk

SMALL = Limits(workers=3, window=4 * LEAF, part=6 * LEAF, part_budget=20 * LEAF)
DISK = random.Random(6).randbytes(200 * LEAF)
PATH = os.pathsep.join([str(Path(__file__).parent), *sys.path])


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 5
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not set(threading.enumerate()) - before


def within(seconds: float, function: Callable[[], object]) -> BaseException | None:
    """What `function` raised; fails where it hangs."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001  # whatever it is, the test looks at it
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it hangs"
    return raised[0] if raised else None


def export(
    source: BlockSource,
    store: PartWriter,
    flow: Flow,
    image: Callable[[ImageOutput, int], PackedImage] | None = None,
    emit: Callable[[bytes], object] = lambda data: None,
) -> None:
    export_disk(
        source,
        image or (lambda output, bound: PackedImage(source.size, output, bound)),
        store,
        DigestWriter(source.size, emit),
        limits=SMALL,
        rules=Rules(),
        flow=flow,
    )


def after(count: int, error: BaseException) -> Callable[..., None]:
    calls = []

    def hook(*_unused: object) -> None:
        calls.append(1)
        if len(calls) == count:
            raise error

    return hook


@pytest.mark.parametrize("at", [1, 7, 50])
def test_a_source_that_fails_is_reported(at: int) -> None:
    error = VmferryError("network", "The source went away.")
    source = MemorySource(DISK, before_read=after(at, error))
    assert within(10, lambda: export(source, MemoryParts(), Flow())) is error


@pytest.mark.parametrize("any_offset", [False, True])
@pytest.mark.parametrize("at", [1, 5, 20])
def test_a_store_that_fails_is_reported(any_offset: bool, at: int) -> None:
    error = VmferryError("no_space", "The store is full.")
    store = MemoryParts(any_offset, before_write=after(at, error))
    assert within(10, lambda: export(MemorySource(DISK), store, Flow())) is error
    assert store.object is None


def test_an_image_writer_that_fails_is_reported() -> None:
    class Broken(PackedImage):
        def data(self, *args: object) -> None:
            if len(self.placed) == 9:
                raise ValueError("table full")
            super().data(*args)  # type: ignore[arg-type]

    error = within(10, lambda: export(MemorySource(DISK), MemoryParts(), Flow(), lambda o, b: Broken(len(DISK), o, b)))
    assert isinstance(error, ValueError)


def test_a_digest_file_that_cannot_be_written_is_reported() -> None:
    error = VmferryError("no_space", "The store is full.")
    failing = after(3, error)
    assert within(10, lambda: export(MemorySource(DISK), MemoryParts(), Flow(), emit=failing)) is error


def test_a_sink_that_fails_is_reported_and_not_flushed() -> None:
    error = VmferryError("no_space", "The pool is full.")
    sink = MemorySink(len(DISK), before_write=after(4, error))

    def copy() -> object:
        return copy_blocks(MemorySource(DISK), sink, None, limits=SMALL, flow=Flow())

    assert within(10, copy) is error
    assert sink.flushed == 0


def test_the_first_error_wins() -> None:
    flow = Flow()
    first, second = ValueError("first"), ValueError("second")
    flow.stop(first)
    flow.stop(second)
    assert flow.error is first


@pytest.mark.parametrize("stage", ["reading", "sending", "writing to a file", "importing"])
def test_a_cancel_ends_every_stage(stage: str) -> None:
    gate, flow = Gate(), Flow()
    cancelled = VmferryError("cancelled", "Enough.")

    def work() -> None:
        if stage == "reading":
            export(MemorySource(DISK, before_read=gate.wait), MemoryParts(), flow)
        elif stage == "importing":
            sink = MemorySink(len(DISK), before_write=gate.wait)
            copy_blocks(MemorySource(DISK), sink, None, limits=SMALL, flow=flow)
        else:
            store = MemoryParts(stage == "writing to a file", before_write=gate.wait)
            export(MemorySource(DISK), store, flow)

    def cancel() -> None:
        assert gate.reached.wait(10)
        flow.stop(cancelled)
        gate.open()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    assert within(10, work) is cancelled
    canceller.join()


def test_those_who_wait_for_memory_a_turn_or_time_are_woken() -> None:
    flow = Flow()
    buffers = Buffers(flow, 1, 1)
    buffers.acquire()
    started = time.monotonic()

    def wait_for_turn() -> None:
        with Turns(flow).turn(1):
            pass

    ended: list[object] = []
    waits: list[Callable[[], object]] = [buffers.acquire, wait_for_turn, lambda: flow.sleep(60)]
    threads = [threading.Thread(target=lambda wait=wait: ended.append(within(10, wait))) for wait in waits]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    flow.stop(ValueError("stop"))
    for thread in threads:
        thread.join()
    assert [type(one) for one in ended] == [Stopped] * 3
    assert time.monotonic() - started < 5


def test_undoing_may_sleep_although_the_job_was_stopped() -> None:
    flow = Flow()
    flow.stop(ValueError("stop"))
    with flow.shielded():
        flow.sleep(0.01)
        flow.raise_if_stopped()
    with pytest.raises(Stopped):
        flow.sleep(0.01)


def test_a_stop_wakes_who_waits_elsewhere() -> None:
    flow, calls = Flow(), []
    with flow.on_stop(lambda: calls.append("over")):
        pass
    with flow.on_stop(lambda: calls.append("under way")):
        flow.stop(ValueError("stop"))
        flow.stop(ValueError("again"))
    with flow.on_stop(lambda: calls.append("late")):
        pass
    assert calls == ["under way", "late"]


def in_a_process(code: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    module_utils.__path__  # noqa: B018  # imported, so that the child finds the package on the same path
    return subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        env={**os.environ, "PYTHONPATH": PATH, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


FAIL_AT = """
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.failpoints import failpoint
for number in range(1, 6):
    print(number, flush=True)
    failpoint("step")
"""


@pytest.mark.parametrize(("variable", "passes"), [("step", 1), ("step:3", 3), ("step:9", 5), ("other", 5), ("", 5)])
def test_a_failpoint_kills_at_its_pass(variable: str, passes: int) -> None:
    done = in_a_process(FAIL_AT, {"VMFERRY_FAILPOINT": variable})
    assert done.stdout.split() == [str(number) for number in range(1, passes + 1)]
    assert done.returncode == (-signal.SIGKILL if variable in ("step", "step:3") else 0)


LARGE_EXPORT = """
import os
from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.digests import DigestWriter
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.limits import Limits
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.pipeline import export_disk
from disks_in_memory import MemoryParts, PackedImage, Rules

class Synthetic:
    def __init__(self, size): self.size = size
    def extents(self):
        for at in range(0, self.size, 1 << 20): yield Extent(at, 1 << 20, "data")
    def read_into(self, pieces):
        for offset, piece in pieces:
            for at in range(0, len(piece), LEAF): piece[at:at + 8] = (offset + at + 1).to_bytes(8, "big")
    def close(self): pass

class Sink(MemoryParts):
    def write_at(self, offset, data): pass
    def write_part(self, part, data): return ""

def run(any_offset, size):
    limits = Limits.of_transfer(any_offset, workers=None)
    export_disk(Synthetic(size), lambda o, b: PackedImage(size, o, b), Sink(any_offset),
        DigestWriter(size, lambda data: None), limits=limits, rules=Rules(min_part=5 << 20), flow=Flow())

def peak():  # ru_maxrss survives exec and would be that of pytest
    return next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
run(bool(os.environ["ANY_OFFSET"]), int(os.environ["SIZE"]))
print(before, peak())
"""


@pytest.mark.parametrize(("any_offset", "allowed"), [("yes", 40), ("", 60)], ids=["path", "store"])
def test_memory_does_not_grow_with_the_disk(any_offset: str, allowed: int) -> None:
    grown = []
    for size in (1 << 28, 2 << 30):
        done = in_a_process(LARGE_EXPORT, {"SIZE": str(size), "ANY_OFFSET": any_offset})
        before, peak = map(int, done.stdout.split())
        grown.append(peak - before)
    assert max(grown) <= allowed, grown
    assert grown[1] - grown[0] <= 8, grown
