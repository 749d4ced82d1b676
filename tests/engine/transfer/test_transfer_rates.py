# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits hold, retries wait as they should, and values are read as people write them."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta
from typing import Callable

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.limiter import Limiter
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.retry import Retry, RetryPolicy
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.timetable import Timetable, parse_timetable
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.units import (
    parse_duration,
    parse_rate,
    parse_size,
)

MIB = 1 << 20
MONDAY = datetime(2026, 1, 5)


class FakeTime:
    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def local(self) -> datetime:
        return MONDAY + timedelta(seconds=self.now - 100)


def limiter(text: str, time_: FakeTime, burst: int | None = None) -> Limiter:
    return Limiter(parse_timetable(text), burst, time_.sleep, time_.clock, time_.local)


@pytest.mark.parametrize("request_size", [4096, 65536, MIB, 8 * MIB])
@pytest.mark.parametrize("rate", ["10MiB/s", "64MiB/s"])
def test_the_rate_is_exact_over_ten_seconds(request_size: int, rate: str) -> None:
    clock = FakeTime()
    limited = limiter(rate, clock)
    moved = 0
    while moved < 10 * (parse_rate(rate) or 0):
        limited.take(request_size)
        moved += request_size
    assert moved / (clock.now - 100) == pytest.approx(parse_rate(rate), rel=0.05)


def test_a_request_larger_than_the_burst_waits_and_does_not_hang() -> None:
    clock = FakeTime()
    limiter("1MiB/s", clock, burst=1000).take(5 * MIB)
    assert clock.now - 100 == pytest.approx(5, rel=0.01)


def test_what_is_saved_up_while_idle_is_the_burst_and_no_more() -> None:
    clock = FakeTime()
    limited = limiter("1MiB/s", clock, burst=2 * MIB)
    clock.now += 3600
    limited.take(2 * MIB)
    assert clock.slept == []
    limited.take(MIB)
    assert clock.now - 3700 == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize("text", ["0", "off", "", "0MiB/s"])
def test_zero_is_no_limit(text: str) -> None:
    clock = FakeTime()
    limiter(text, clock).take(1 << 40)
    assert clock.slept == []


def test_the_timetable_holds_while_a_request_waits() -> None:
    clock = FakeTime()
    limited = limiter("00:00,1M 00:01,10M", clock)
    limited.take(60 * MIB + 100 * MIB)
    assert clock.now - 100 == pytest.approx(70, rel=0.02)


def test_an_hour_without_a_limit_ends_the_wait() -> None:
    clock = FakeTime()
    limiter("00:00,1K 00:01,off", clock).take(1 << 40)
    assert clock.now - 100 == pytest.approx(61, abs=2)


def test_many_threads_share_one_rate() -> None:
    limited = Limiter(parse_timetable("40MiB/s"))
    stop = time.monotonic() + 3
    moved: list[int] = []

    def work() -> None:
        while time.monotonic() < stop:
            limited.take(MIB // 4)
            moved.append(MIB // 4)

    started = time.monotonic()
    threads = [threading.Thread(target=work) for _unused in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - started
    # 3 s show the burst of a quarter second more than 10 s would
    assert sum(moved) / MIB == pytest.approx(40 * (seconds + 0.25), rel=0.05)


def test_who_is_limited_says_that_it_waits() -> None:
    clock, waits = FakeTime(), []
    limited = Limiter(
        parse_timetable("1MiB/s"), None, clock.sleep, clock.clock, clock.local, lambda: waits.append(clock.now)
    )
    limited.take(10 * MIB)
    assert len(waits) > 10
    assert max(later - earlier for earlier, later in zip(waits, waits[1:])) <= 0.5


def test_a_stop_ends_the_wait() -> None:
    def stopped(seconds: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        Limiter(parse_timetable("1KiB/s"), None, stopped).take(MIB)


@pytest.mark.parametrize(
    ("text", "day", "hour", "rate"),
    [
        ("08:00,512K 12:00,10M 13:00,512K 18:00,30M 23:00,off", 0, 9, 512 * 1024),
        ("08:00,512K 12:00,10M 13:00,512K 18:00,30M 23:00,off", 2, 12, 10 * MIB),
        ("08:00,512K 12:00,10M 13:00,512K 18:00,30M 23:00,off", 6, 20, 30 * MIB),
        ("08:00,512K 12:00,10M 13:00,512K 18:00,30M 23:00,off", 3, 23, None),
        ("08:00,512K 12:00,10M 13:00,512K 18:00,30M 23:00,off", 3, 7, None),
        ("08:00,512K 12:00,10M 13:00,512K 18:00,30M 23:00,off", 6, 7, None),
        ("Mon-00:00,512K Fri-23:00,10M", 2, 9, 512 * 1024),
        ("Mon-00:00,512K Fri-23:00,10M", 5, 9, 10 * MIB),
        ("Mon-00:00,512K Fri-23:00,10M", 6, 9, 10 * MIB),
        ("18:00,30MB/s saturday-00:00,off", 5, 12, None),
        ("10MiB/s", 4, 4, 10 * MIB),
    ],
)
def test_a_timetable_is_read_as_rclone_reads_it(text: str, day: int, hour: int, rate: float | None) -> None:
    assert parse_timetable(text).rate_at(MONDAY + timedelta(days=day, hours=hour, minutes=1)) == rate


@pytest.mark.parametrize(
    "text",
    ["10", "10M:1M", "8:00,1M", "24:00,1M", "08:60,1M", "Foo-08:00,1M", "08:00", "08:00,1M,2M", "08:00,x", "-1M"],
)
def test_a_timetable_that_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(VmferryError) as caught:
        parse_timetable(text)
    assert caught.value.kind == "invalid_config"
    assert caught.value.hint


def test_a_timetable_of_nothing_but_off_is_unlimited() -> None:
    assert parse_timetable("off").unlimited
    assert not Timetable(((0, None), (5, 1.0))).unlimited


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_size, "512", 512),
        (parse_size, "10MiB", 10 * MIB),
        (parse_size, "100GB", 100 * 10**9),
        (parse_size, "64K", 65536),
        (parse_size, " 1.5 GiB ", 3 << 29),
        (parse_size, "7B", 7),
        (parse_rate, "20MiB/s", 20 * MIB),
        (parse_rate, "20MB/s", 20_000_000),
        (parse_rate, "512K", 512 * 1024),
        (parse_rate, "100B", 100),
        (parse_rate, "0", None),
        (parse_rate, "off", None),
        (parse_duration, "90", 90),
        (parse_duration, "12h", 43200),
        (parse_duration, "720h", 2_592_000),
        (parse_duration, "30d", 2_592_000),
        (parse_duration, "2w", 1_209_600),
        (parse_duration, "1h30m", 5400),
        (parse_duration, "0.5s", 0.5),
    ],
)
def test_values_are_read(parse: Callable[[str], float | None], text: str, value: float | None) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        *[(parse_size, text) for text in ("", "MiB", "-1", "10 apples", "1e3", "10iB", "0x10", "10MiB/s", "٣")],
        *[(parse_rate, text) for text in ("20", "1.5", "20Mb/s", "20Mbit/s", "fast", "20/s", "")],
        *[(parse_duration, text) for text in ("", "h", "-5", "5 minutes", "1y", "1h 30", "yes")],
    ],
)
def test_values_that_cannot_be_meant_are_refused_with_what_is_accepted(
    parse: Callable[[str], object], text: str
) -> None:
    with pytest.raises(VmferryError) as caught:
        parse(text)
    assert caught.value.kind == "invalid_config"
    assert "written" in caught.value.hint


def failing(times: int, error: VmferryError) -> Callable[[], str]:
    calls = []

    def function() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return f"try {len(calls)}"

    return function


BUSY = VmferryError("network", "Reset.")


def retry(clock: FakeTime, random: float = 1.0, **policy: float) -> Retry:
    return Retry(RetryPolicy(**policy), clock.sleep, random=lambda: random, clock=clock.clock)  # type: ignore[arg-type]


def test_waits_double_up_to_the_cap() -> None:
    clock = FakeTime()
    assert retry(clock, max_retries=7, cap=10.0).call(failing(7, BUSY)) == "try 8"
    assert clock.slept == [1, 2, 4, 8, 10, 10, 10]


def test_jitter_is_full() -> None:
    for random, slept in ((0.0, [0, 0, 0]), (0.25, [0.25, 0.5, 1.0])):
        clock = FakeTime()
        retry(clock, random).call(failing(3, BUSY))
        assert clock.slept == slept


def test_the_last_error_is_raised_when_patience_ends() -> None:
    clock = FakeTime()
    with pytest.raises(VmferryError) as caught:
        retry(clock).call(failing(4, BUSY))
    assert caught.value is BUSY
    assert len(clock.slept) == 3


def test_no_retries_means_one_try() -> None:
    clock = FakeTime()
    with pytest.raises(VmferryError):
        retry(clock, max_retries=0).call(failing(1, BUSY))
    assert clock.slept == []


@pytest.mark.parametrize("kind", ["no_space", "unauthenticated", "permission_denied", "checksum_mismatch"])
def test_a_permanent_error_stops_at_once(kind: str) -> None:
    clock = FakeTime()
    with pytest.raises(VmferryError):
        retry(clock).call(failing(1, VmferryError(kind, "No.")))  # type: ignore[arg-type]
    assert clock.slept == []


def test_what_the_server_asks_for_is_obeyed() -> None:
    clock = FakeTime()
    retry(clock).call(failing(1, VmferryError("rate_limited", "Slow down.", retry_after=17.0)))
    assert clock.slept == [17]


def test_a_wait_beyond_the_budget_is_not_begun() -> None:
    clock = FakeTime()
    with pytest.raises(VmferryError):
        retry(clock, max_retries=1000, give_up_after=60.0).call(failing(1000, BUSY))
    assert 30 < clock.now - 100 <= 60
    clock = FakeTime()
    with pytest.raises(VmferryError):
        retry(clock, give_up_after=60.0).call(failing(1, VmferryError("busy", "Later.", retry_after=3600.0)))
    assert clock.slept == []


def test_the_budget_starts_at_the_first_failure_of_each_call() -> None:
    clock = FakeTime()
    patient = retry(clock, give_up_after=8.0)
    clock.now += 1000
    assert patient.call(failing(3, BUSY)) == "try 4"
    assert patient.call(failing(3, BUSY)) == "try 4"


def test_each_retry_is_told() -> None:
    clock, told = FakeTime(), []
    Retry(RetryPolicy(), clock.sleep, lambda error, delay: told.append((error, delay)), lambda: 1.0, clock.clock).call(
        failing(2, BUSY)
    )
    assert told == [(BUSY, 1.0), (BUSY, 2.0)]
