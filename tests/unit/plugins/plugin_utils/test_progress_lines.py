# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a line reads, and when there is one."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.plugin_utils.progress_lines import (
    ProgressLines,
    amount,
    clock_time,
    described,
)

RECORD: dict[str, Any] = {
    "vm": "web01",
    "phase": "exporting",
    "disk_number": 1,
    "disk_count": 2,
    "phase_percent": 41.7,
    "rate": 114_200_000,
    "eta": 12.2,
    "retries": 0,
    "finished": None,
}


def test_a_line_reads_well() -> None:
    assert described(RECORD) == "exporting disk 1/2 · 41.7 % · 114 MB/s · 0:12 left"
    assert described({**RECORD, "rate": 0, "eta": None}) == "exporting disk 1/2 · 41.7 %"
    assert described({**RECORD, "retries": 1}).endswith(" · 0:12 left · 1 retry")
    assert described({**RECORD, "retries": 2}).endswith(" · 2 retries")
    assert described({"phase": "snapshotting"}) == "snapshotting"
    assert described({"phase": "pending", "note": "waiting for a slot"}) == "pending · waiting for a slot"
    over = {"started": 100.0, "finished": 172.0, "bytes_read": 360_000_000, "bytes_sent": 72_000}
    ended = {**RECORD, **over, "phase": "ready"}
    assert described(ended) == "ready in 1:12 · 360 MB read at 5.00 MB/s · 72.0 kB sent at 1.00 kB/s"
    for kind in ("import", "migrate"):
        assert described({**ended, "kind": kind}).endswith(" · 72.0 kB written at 1.00 kB/s")
    assert described({**ended, "note": "nothing changed since X"}) == "ready in 1:12 · nothing changed since X"
    assert described({**RECORD, **over, "phase": "failed"}) == "failed"


def test_the_last_line_says_what_was_made_and_what_was_there_already() -> None:
    ended = {**RECORD, "phase": "ready", "started": 100.0, "finished": 172.0, "bytes_sent": 72_000}
    sent = "72.0 kB sent at 1.00 kB/s"
    assert described({**ended, "outcome": "increment on X"}) == f"ready in 1:12 · increment on X · {sent}"
    resumed = {"export": "X", "bytes_kept": 239_000_000}
    told = described({**ended, "outcome": "full, since Y is gone", "resumed": resumed})
    assert told == f"ready in 1:12 · full, since Y is gone · {sent} · 239 MB kept"


def test_the_last_line_tells_of_no_bytes_written_where_nothing_changed() -> None:
    ended = {
        **RECORD,
        "kind": "download",
        "phase": "ready",
        "started": 100.0,
        "finished": 172.0,
        "outcome": "unchanged",
    }
    assert described({**ended, "bytes_read": 72_000, "bytes_sent": 72_000}) == (
        "ready in 1:12 · unchanged · 72.0 kB read at 1.00 kB/s"
    )


def test_that_an_export_goes_on_is_told_once() -> None:
    shown: list[str] = []
    lines = ProgressLines("kvm1", 5.0, shown.append, lambda: 0.0)
    for _unused in range(2):
        lines.update({**RECORD, "resumed": {"export": "X", "bytes_kept": 239_000_000}})
    assert shown[1] == "[kvm1: web01] going on with X, 239 MB are there already"
    assert len(shown) == 2


def test_the_last_line_of_a_job_that_was_quick_is_how_it_ended() -> None:
    shown: list[str] = []
    ended = {**RECORD, "phase": "ready", "started": 100.0, "finished": 101.0, "resumed": {"export": "X"}}
    ProgressLines("kvm1", 5.0, shown.append, lambda: 0.0).update(ended)
    assert "going on with X" in shown[0]
    assert "ready in" in shown[1]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (12_345, "12.3 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (1_290_000_000, "1.29 GB"),
        (5e18, "5000 PB"),
    ],
)
def test_amounts_have_three_digits(count: float, text: str) -> None:
    assert amount(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (754, "12:34"), (3723, "1:02:03"), (183_600, "2 d 3 h")],
)
def test_times_are_as_on_a_clock(seconds: float, text: str) -> None:
    assert clock_time(seconds) == text


class Watched:
    def __init__(self, host: str = "kvm1") -> None:
        self.now, self.shown = 0.0, [""] * 0
        self.lines = ProgressLines(host, 5.0, self.shown.append, lambda: self.now)

    def see(self, at: float, **fields: Any) -> int:
        """How many lines there are then."""
        self.now = at
        self.lines.update({**RECORD, **fields})
        return len(self.shown)


def test_a_phase_is_told_at_once_and_then_now_and_then() -> None:
    watched = Watched()
    assert [watched.see(0.0), watched.see(4.9), watched.see(5.0), watched.see(6.0)] == [1, 1, 2, 2]
    assert watched.see(6.1, phase="verifying") == 3
    assert watched.see(11.0, phase="verifying") == 3
    assert watched.see(11.1, phase="verifying") == 4


def test_a_job_that_waits_says_for_what_and_one_that_does_not_wait_says_nothing() -> None:
    watched = Watched()
    assert watched.see(0.0, phase="pending", disk_count=0) == 0
    assert watched.see(1.0, phase="pending", disk_count=0, note="waiting for one of 4 slots") == 1
    assert watched.shown == ["[kvm1: web01] pending · waiting for one of 4 slots"]


def test_the_end_is_told_once() -> None:
    watched = Watched()
    over = {"phase": "ready", "started": 0.0, "finished": 9.0, "average_rate": 0}
    assert [watched.see(10.0, **over), watched.see(99.0, **over)] == [1, 1]


def test_the_first_line_says_by_which_id_the_job_is_found() -> None:
    watched = Watched()
    watched.see(0.0, id="5f0c41d27a3e4b91", phase="pending", disk_count=0)
    watched.see(0.0, id="5f0c41d27a3e4b91", phase="snapshotting", disk_count=0)
    watched.see(1.0, id="5f0c41d27a3e4b91")
    assert watched.shown[0] == "[kvm1: web01] snapshotting · job 5f0c41d27a3e4b91"
    assert "5f0c41d27a3e4b91" not in watched.shown[1]


def test_a_vm_of_its_hosts_name_is_named_once() -> None:
    watched = Watched("web01")
    watched.see(0.0)
    assert watched.shown[0].startswith("[web01] exporting")


def test_names_cannot_write_on_the_terminal() -> None:
    watched = Watched("h\x1b[31most")
    watched.see(0.0, vm="web\r\n01\u2028\x07", note="a\x9bb")
    assert watched.shown[0].startswith("[h[31most: web01] exporting")
    assert watched.shown[0].isprintable()
