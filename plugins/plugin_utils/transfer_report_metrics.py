# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics of transfers in Prometheus' text format, in a file that node_exporter's textfile collector reads.

A file outlives many runs: what a run does not touch stays, and a failure keeps the time of the last success.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .transfer_report import Transfer

LOCK_SECONDS = 10.0
MODE = 0o644  # node_exporter runs as a user of its own
LAST_RUN = "vmferry_transfer_last_run_timestamp_seconds"
LAST_SUCCESS = "vmferry_transfer_last_success_timestamp_seconds"
SUCCESS = "vmferry_transfer_success"
DURATION = "vmferry_transfer_duration_seconds"
BYTES_READ = "vmferry_transfer_bytes_read"
BYTES_STORED = "vmferry_transfer_bytes_stored"
TAKEN = "vmferry_transfer_export_taken_timestamp_seconds"
CHECKED = "vmferry_transfer_export_checked_timestamp_seconds"
HELP = {
    LAST_RUN: "When a transfer of this VM last ended, well or not.",
    LAST_SUCCESS: "When a transfer of this VM last succeeded, or found that nothing had to be done.",
    SUCCESS: "Whether the last transfer of this VM succeeded (1) or not (0).",
    DURATION: "How long the last transfer of this VM took.",
    BYTES_READ: "Bytes that the last transfer of this VM read.",
    BYTES_STORED: "Bytes that the last transfer of this VM stored.",
    TAKEN: "The point in time of the export that the last successful transfer of this VM made, found or imported.",
    CHECKED: "When the VM was last seen to equal that export: its point in time, or later where nothing had changed.",
}
KEPT = (LAST_SUCCESS, TAKEN, CHECKED)  # by a failure
_LABEL = r'"((?:[^"\\\n]|\\["\\n])*)"'
_SAMPLE = re.compile(rf"(\w+)\{{host={_LABEL},vm={_LABEL},kind={_LABEL}\}} ([-+.\w]+)")
_ESCAPED = {"\\": r"\\", '"': r"\"", "\n": r"\n"}
_PLAIN = {escaped: plain for plain, escaped in _ESCAPED.items()}


@dataclass(frozen=True, order=True)
class Series:
    """The labels of one VM's metrics. `vm` is empty for what failed before its VM was known."""

    host: str
    vm: str
    kind: str


Samples = dict[Series, dict[str, float]]


class NotOurs(Exception):
    """The file holds something else, which is not overwritten."""


def after(samples: Mapping[Series, Mapping[str, float]], transfers: Iterable[Transfer]) -> Samples:
    """The samples after one more run. Of several transfers of a VM in it, the last one counts."""
    merged: Samples = {series: dict(values) for series, values in samples.items()}
    run: Samples = {}
    for transfer in transfers:
        series = Series(_utf8(transfer.host), _utf8(transfer.vm), transfer.kind)
        run[series] = _values(transfer, {**merged.get(series, {}), **run.get(series, {})})
    for series in run:
        # The host's VMs are known again; without this, a failure of none of them would be told for ever.
        merged.pop(Series(series.host, "", series.kind), None)
    merged.update(run)
    return merged


def _values(transfer: Transfer, before: Mapping[str, float]) -> dict[str, float]:
    known = {name: before[name] for name in KEPT if name in before}
    if transfer.succeeded:
        known[LAST_SUCCESS] = transfer.time
        if transfer.taken_at is not None:
            known[TAKEN] = transfer.taken_at
        if transfer.checked_at is not None:
            known[CHECKED] = transfer.checked_at
    measured = {
        LAST_RUN: transfer.time,
        SUCCESS: float(transfer.succeeded),
        DURATION: transfer.duration,
        BYTES_READ: transfer.bytes_read,
        BYTES_STORED: transfer.bytes_stored,
    }
    return {**known, **{name: value for name, value in measured.items() if value is not None}}


def exposition(samples: Mapping[Series, Mapping[str, float]]) -> str:
    lines = []
    for name, text in HELP.items():
        of_name = [(series, values[name]) for series, values in sorted(samples.items()) if name in values]
        if of_name:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
            lines += [f"{name}{_labels(series)} {_number(value)}" for series, value in of_name]
    return "".join(f"{line}\n" for line in lines)


def parse(text: str) -> Samples:
    """What `exposition` wrote. Raises `NotOurs`."""
    samples: Samples = {}
    for line in text.split("\n"):
        if not line or line.startswith("#"):
            continue
        found = _SAMPLE.fullmatch(line)
        if not found or not found[1].startswith("vmferry_transfer_"):
            raise NotOurs("it holds something else than the metrics of transfers")
        series = Series(*(_unescaped(label) for label in found.group(2, 3, 4)))
        try:
            samples.setdefault(series, {})[found[1]] = float(found[5])
        except ValueError as error:
            raise NotOurs(f"{found[5]} is not a number") from error
    return samples


def write_metrics(path: Path, transfers: Iterable[Transfer]) -> None:
    """Readers see the old file or the new one. Plays that end at the same time wait for each other.

    Raises `NotOurs`, `TimeoutError` and other kinds of OSError.
    """
    with _locked(path):
        try:
            before = parse(path.read_bytes().decode("utf-8"))  # read_text would turn every CR into LF
        except FileNotFoundError:
            before = {}
        except UnicodeDecodeError as error:
            raise NotOurs("it is not a text file") from error
        _replace(path, exposition(after(before, transfers)))


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """By a file beside it: the file itself is replaced. The collector reads only names that end in .prom."""
    lock = path.with_name(f".{path.name}.lock")
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while not _lock(descriptor):
            if time.monotonic() > deadline:
                raise TimeoutError(f"another play has held {lock} for {LOCK_SECONDS:.0f} s")
            time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _replace(path: Path, text: str) -> None:
    descriptor, fresh = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fchmod(file.fileno(), MODE)
            os.fsync(file.fileno())
        Path(fresh).replace(path)
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise


def _labels(series: Series) -> str:
    return f'{{host="{_escaped(series.host)}",vm="{_escaped(series.vm)}",kind="{_escaped(series.kind)}"}}'


def _utf8(text: str) -> str:
    """Ansible keeps bytes that are no UTF-8 as surrogates."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _escaped(label: str) -> str:
    return re.sub(r'[\\"\n]', lambda found: _ESCAPED[found[0]], label)


def _unescaped(label: str) -> str:
    return re.sub(r'\\["\\n]', lambda found: _PLAIN[found[0]], label)


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
