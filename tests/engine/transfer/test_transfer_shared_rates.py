# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One limit for all processes of a host: it holds, it is shared as priorities say, and no file can stop or open it."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer import shared_bucket
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.bucket import Booking, Bucket, Wish
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.limiter import Limiter
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.priority import WEIGHTS
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.shared_bucket import PATIENCE, SharedBucket
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.timetable import parse_timetable
from rigs.throttled import Asking, begin

MIB = 1 << 20
START = 1000.0  # by the fake clock
BURST = 0.25  # seconds


class FakeTime:
    def __init__(self) -> None:
        self.now = START

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def clock(self) -> float:
        return self.now


class Counted(Bucket):
    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def book(self, now: float, wish: Wish) -> Booking | None:
        self.asked += 1
        return super().book(now, wish)


@contextmanager
def shared(state_dir: Path, limit: str = "one") -> Iterator[SharedBucket]:
    bucket = SharedBucket(state_dir, limit)
    try:
        yield bucket
    finally:
        bucket.close()


def limiter(
    bucket: Bucket, time_: FakeTime, rate: str = "1MiB/s", burst: int | None = None, weight: int = 2
) -> Limiter:
    return Limiter(parse_timetable(rate), burst, time_.sleep, time_.clock, bucket=bucket, weight=weight)


def seconds_of(limited: Limiter, time_: FakeTime, nbytes: int) -> float:
    started = time_.now
    limited.take(nbytes)
    return time_.now - started


def the_file(state_dir: Path) -> Path:
    (path,) = (state_dir / "bandwidth").iterdir()
    return path


def state(until: float) -> bytes:
    return struct.pack("<d", until) + struct.pack("<I", zlib.crc32(struct.pack("<d", until)))


def test_two_share_one_rate_and_one_burst(tmp_path: Path) -> None:
    time_ = FakeTime()
    with shared(tmp_path) as one, shared(tmp_path) as other:
        first, second = limiter(one, time_), limiter(other, time_)
        for _turn in range(20):
            first.take(MIB // 4)
            second.take(MIB // 4)
    assert time_.now - START == pytest.approx(10 - BURST, abs=0.11)  # what each holds ahead is 0.05 s


def test_another_limit_is_not_shared(tmp_path: Path) -> None:
    time_ = FakeTime()
    with shared(tmp_path, "one") as one, shared(tmp_path, "other") as other:
        limiter(one, time_).take(5 * MIB)
        assert seconds_of(limiter(other, time_), time_, MIB // 8) == 0


@pytest.mark.parametrize("weight", WEIGHTS.values())
@pytest.mark.parametrize("step", [100, 4096, 65536, 8 * MIB])
@pytest.mark.parametrize("rate", ["64KiB/s", "1MiB/s", "100MiB/s"])
def test_the_bucket_is_asked_at_most_fifty_times_a_second(weight: int, step: int, rate: str) -> None:
    time_, bucket = FakeTime(), Counted()
    limited = limiter(bucket, time_, rate, weight=weight)
    while time_.now - START < 4:
        limited.take(step * (100 if rate == "100MiB/s" else 1))
    assert 4 < bucket.asked <= 50 * (time_.now - START) + BURST / 0.025


def test_a_large_burst_is_taken_at_once_and_not_piece_by_piece() -> None:
    time_, bucket = FakeTime(), Counted()
    assert seconds_of(limiter(bucket, time_, burst=64 * MIB), time_, 64 * MIB) == 0
    assert bucket.asked == 1


def test_a_request_larger_than_the_burst_never_hangs(tmp_path: Path) -> None:
    time_ = FakeTime()
    with shared(tmp_path) as bucket:
        assert seconds_of(limiter(bucket, time_, burst=1), time_, 100 * MIB) == pytest.approx(100, rel=0.01)


def test_what_was_booked_and_not_used_is_not_saved_for_later() -> None:
    time_ = FakeTime()
    limited = limiter(Bucket(), time_, burst=1)
    limited.take(1)  # of 0.05 seconds' worth
    time_.now += 60
    assert seconds_of(limited, time_, MIB // 20) == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0",
        b"\0" * 12,
        bytes(range(12)),
        state(START + 1)[:11],
        state(START + 61),
        state(START + 1e9),
        state(float("inf")),
        state(float("nan")),
        state(START - 5)[:-1] + b"\xff",
    ],
)
def test_a_file_that_cannot_be_true_neither_holds_anybody_up_nor_lets_him_through(
    tmp_path: Path, garbage: bytes
) -> None:
    time_ = FakeTime()
    with shared(tmp_path) as bucket:
        the_file(tmp_path).write_bytes(garbage)
        assert seconds_of(limiter(bucket, time_), time_, 10 * MIB) == pytest.approx(10, abs=0.06)


def test_what_was_booked_by_who_was_killed_passes(tmp_path: Path) -> None:
    time_ = FakeTime()
    with shared(tmp_path) as bucket:
        the_file(tmp_path).write_bytes(state(START + 0.1))
        assert seconds_of(limiter(bucket, time_), time_, MIB) == pytest.approx(1.1, abs=0.06)


def test_after_a_boot_the_file_of_the_last_one_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    time_ = FakeTime()
    with shared(tmp_path) as bucket:
        limiter(bucket, time_).take(MIB)
        time_.now = START
        monkeypatch.setattr(shared_bucket, "clock_domain", lambda: "another boot")
        with shared(tmp_path) as later:
            assert seconds_of(limiter(later, time_), time_, MIB // 8) == 0
            assert seconds_of(limiter(later, time_), time_, MIB) == pytest.approx(1 - BURST / 2, abs=0.06)


def test_files_of_long_ago_are_removed_when_one_is_made(tmp_path: Path) -> None:
    with shared(tmp_path, "old"):
        os.utime(the_file(tmp_path), (0, 0))
    with shared(tmp_path, "young"), shared(tmp_path, "new"):
        assert len(list((tmp_path / "bandwidth").iterdir())) == 2


def test_whoever_removes_the_file_does_not_part_those_who_share_it(tmp_path: Path) -> None:
    time_ = FakeTime()
    with shared(tmp_path) as one, shared(tmp_path) as other:
        first, second = limiter(one, time_), limiter(other, time_)
        first.take(MIB)
        second.take(MIB)
        the_file(tmp_path).unlink()
        (tmp_path / "bandwidth").rmdir()
        started = time_.now
        for _turn in range(20):
            first.take(MIB // 4)
            second.take(MIB // 4)
        assert time_.now - started == pytest.approx(10, abs=BURST + 0.11)  # a new file has a burst


def test_a_lock_that_is_never_given_back_leaves_each_its_own_rate(tmp_path: Path) -> None:
    time_ = FakeTime()
    with shared(tmp_path) as bucket:
        holder = os.open(the_file(tmp_path), os.O_RDWR)
        try:
            fcntl.flock(holder, fcntl.LOCK_EX)
            assert seconds_of(limiter(bucket, time_), time_, 20 * MIB) == pytest.approx(PATIENCE + 20 - BURST, abs=0.1)
        finally:
            os.close(holder)


def test_a_file_that_can_be_written_no_more_leaves_each_its_own_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_unused: object) -> int:
        raise OSError(28, "No space left on device")

    time_ = FakeTime()
    with shared(tmp_path) as bucket:
        monkeypatch.setattr(os, "pwrite", full)
        assert seconds_of(limiter(bucket, time_), time_, 5 * MIB) == pytest.approx(5 - BURST, abs=0.06)


def test_a_bucket_that_was_closed_touches_no_file_and_keeps_the_rate(tmp_path: Path) -> None:
    time_ = FakeTime()
    with shared(tmp_path) as bucket:
        pass
    bucket.close()
    with (tmp_path / "innocent").open("w+") as reused:
        assert seconds_of(limiter(bucket, time_), time_, 5 * MIB) == pytest.approx(5 - BURST, abs=0.06)
        assert reused.read() == ""


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "bandwidth").write_text("in the way")
    with pytest.raises(VmferryError) as caught:
        SharedBucket(tmp_path, "one")
    assert caught.value.kind == "permission_denied"
    assert "state_dir" in caught.value.hint


def test_only_their_owner_reads_the_files(tmp_path: Path) -> None:
    with shared(tmp_path / "state"):
        assert the_file(tmp_path / "state").stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "state/bandwidth").stat().st_mode & 0o777 == 0o700


RATE = 4 * MIB


def shares(rates: Sequence[float]) -> list[float]:
    return [rate / sum(rates) for rate in rates]


def test_one_process_and_four_that_share_keep_the_limit(tmp_path: Path) -> None:
    four = [Asking(tmp_path / "four", "4MiB/s", "normal", 2.5) for _unused in range(4)]
    alone = Asking(tmp_path / "alone", "4MiB/s", "normal", 2.5)
    begin([*four, alone])
    for group in ([one.end() for one in four], [alone.end()]):
        began = min(one.moments[0][0] for one in group)
        ended = min(one.moments[-1][0] for one in group)
        assert ended - began > 1.5
        moved = sum(one.between(began + 0.5, ended) for one in group)
        # A busy machine does not let them ask as often as they might; that they may have all of it, fake time shows.
        assert 0.6 < moved / (ended - began - 0.5) / RATE < 1.05
        assert sum(one.until(ended) for one in group) <= RATE * (ended - began + BURST) * 1.02


def test_priorities_share_one_to_two_to_four_and_the_rest_is_shared_when_one_is_killed(tmp_path: Path) -> None:
    asking = [Asking(tmp_path, "4MiB/s", priority, 3.5) for priority in WEIGHTS]
    killed = Asking(tmp_path, "4MiB/s", "high", 60)
    begin([*asking, killed])
    with pytest.raises(subprocess.TimeoutExpired):
        killed.process.wait(0.7)
    killed.process.send_signal(signal.SIGKILL)
    with killed.process:
        pass
    allowed = [one.end() for one in asking]
    ended = min(one.moments[-1][0] for one in allowed)
    rates = [one.between(ended - 2.4, ended) / 2.4 for one in allowed]
    assert sum(rates) == pytest.approx(RATE, rel=0.05)
    for share, weight in zip(shares(rates), WEIGHTS.values()):
        assert share == pytest.approx(weight / 7, rel=0.15)


def test_who_is_alone_gets_the_whole_whatever_his_priority(tmp_path: Path) -> None:
    time_ = FakeTime()
    with shared(tmp_path) as bucket:
        limited = limiter(bucket, time_, weight=WEIGHTS["low"])
        assert seconds_of(limited, time_, 10 * MIB) == pytest.approx(10 - BURST, abs=0.06)
