# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a play prints of a job under way: one line on each new phase, and one now and then while it lasts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

SIGNIFICANT = 3  # digits of an amount
OF_OBJECTS = frozenset({"upload", "download", "copy"})  # kinds of jobs that know of no disks
WRITES = frozenset({"import", "download", "migrate"})  # kinds that send nothing away
UNCHANGED = "unchanged"  # an outcome
SHORTEST = 0.001  # seconds
UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


class ProgressLines:
    """`show` prints a line. At most one each `interval` seconds in a phase; a new phase is told at once."""

    def __init__(self, host: str, interval: float, show: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._host, self._interval, self._show, self._clock = host, interval, show, clock
        self._vm = ""
        self._told: tuple[str, str] | None = None  # phase and note
        self._told_at = 0.0
        self._goes_on = ""  # the unfinished export that was told

    def update(self, record: Mapping[str, Any]) -> None:
        """As often as the record is read."""
        self._vm = str(record.get("vm") or "")
        if record.get("finished"):  # how it ended is the last that is told
            self._tell_of_resumed(record)
        self._tell_of_state(record)
        self._tell_of_resumed(record)

    def _tell_of_state(self, record: Mapping[str, Any]) -> None:
        now, state = self._clock(), (str(record.get("phase")), str(record.get("note") or ""))
        if state == ("pending", ""):  # every job is, for a moment
            return
        if state == self._told and now - self._told_at < self._interval:
            return
        if state == self._told and record.get("finished"):
            return
        first = self._told is None and record.get("id")
        self._told, self._told_at = state, now
        self.say(f"{described(record)} · job {record['id']}" if first else described(record))

    def _tell_of_resumed(self, record: Mapping[str, Any]) -> None:
        resumed = record.get("resumed") or {}
        name = str(resumed.get("export") or "")
        if name and name != self._goes_on:
            self._goes_on = name
            self.say(f"going on with {name}, {amount(resumed.get('bytes_kept') or 0)} are there already")

    def say(self, text: str) -> None:
        who = self._host if self._vm in ("", self._host) else f"{self._host}: {self._vm}"
        self._show(printable(f"[{who}] {text}"))


def described(record: Mapping[str, Any]) -> str:
    """`exporting disk 1/2 · 41.7 % · 114 MB/s · 0:12 left`, as far as the record knows."""
    phase = str(record.get("phase"))
    if record.get("finished"):
        return f"{phase}{_summary(record) if phase == 'ready' else ''}"
    parts = [phase]
    if count := record.get("disk_count"):
        thing = "object" if record.get("kind") in OF_OBJECTS else "disk"
        parts = [f"{phase} {thing} {record.get('disk_number')}/{count}", f"{record.get('phase_percent', 0.0):.1f} %"]
        if rate := record.get("rate"):
            parts.append(f"{amount(rate)}/s")
        if (eta := record.get("eta")) is not None:
            parts.append(f"{clock_time(eta)} left")
    if note := record.get("note"):
        parts.append(str(note))
    if retries := record.get("retries"):
        parts.append("1 retry" if retries == 1 else f"{retries} retries")
    return " · ".join(parts)


def _summary(record: Mapping[str, Any]) -> str:
    """Of what was read and of what was sent, each with its rate: an increment sends little of what it reads."""
    seconds = float(record["finished"]) - float(record["started"])
    parts = [f" in {clock_time(seconds)}"]
    if note := record.get("note"):
        return " · ".join([*parts, str(note)])
    outcome = str(record.get("outcome") or "")
    if outcome:
        parts.append(outcome)
    for name, done in (("bytes_read", "read"), ("bytes_sent", "written" if record.get("kind") in WRITES else "sent")):
        if outcome == UNCHANGED and name == "bytes_sent":  # what came was compared, and dropped
            continue
        if count := record.get(name):
            parts.append(f"{amount(count)} {done} at {amount(count / max(seconds, SHORTEST))}/s")
    if kept := (record.get("resumed") or {}).get("bytes_kept"):
        parts.append(f"{amount(kept)} kept")
    return " · ".join(parts)


def amount(count: float) -> str:
    """Bytes with three digits: 114 MB, 1.29 GB. Decimal, as disks and networks are sold."""
    power = 0
    while count >= 999.5 and power < len(UNITS) - 1:
        count, power = count / 1000, power + 1
    whole_digits = len(str(int(count)))
    return f"{count:.{max(0, SIGNIFICANT - whole_digits) if power else 0}f} {UNITS[power]}"


def clock_time(seconds: float) -> str:
    """0:12, 12:34, 1:02:03, 2 d 3 h."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour} h"
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def printable(text: str) -> str:
    """One line without control characters: names are the guests' and administrators' to choose."""
    return "".join(letter for letter in text if letter.isprintable())
