# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user asks for, parsed: sizes in bytes, times in seconds, names not yet looked up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Mapping

from .._providers.base import Consistency, Placement

Verify = Literal["none", "stored", "content"]
ImageFormat = Literal["qcow2", "raw"]
JobState = Literal["cancelled", "finished", "absent"]  # that a job is brought into


@dataclass(frozen=True)
class ProviderSpec:
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StoreSpec:
    url: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TransferOptions:
    """How bytes move; `None` leaves the choice to us."""

    parallel: int | None = None  # readers at work; one per core
    bandwidth_limit: str = ""  # a rate or a timetable of rates; empty or 0: unlimited
    bandwidth_burst: int | None = None  # bytes that may go at once; a quarter of a second's worth
    max_retries: int = 3
    idle_timeout: float = 300.0
    max_duration: float | None = None
    state_dir: str = ""  # empty: the default for this user
    job_id: str = ""  # empty: a new one
    max_jobs: int | None = None  # of one hypervisor or account at once; the provider's own limit
    controller_timeout: float = 0.0  # seconds without a sign of whoever started the job; 0: it needs nobody


@dataclass(frozen=True)
class ExportRequest:
    provider: ProviderSpec
    store: StoreSpec
    vm: str
    disks: tuple[str, ...] | None = None  # ids or the provider's names; None: all
    name: str = ""
    max_age: float | None = None
    consistency: Consistency = "auto"
    format: ImageFormat = "qcow2"
    verify: Verify = "stored"
    tags: tuple[str, ...] = ()
    purpose: str = ""
    transfer: TransferOptions = TransferOptions()


@dataclass(frozen=True)
class ImportRequest:
    provider: ProviderSpec
    store: StoreSpec
    placement: Placement
    export: str = ""  # an export's id or name; empty: the newest
    vm: str = ""  # name or id of the VM that was exported; empty: the only one there
    transfer: TransferOptions = TransferOptions()


@dataclass(frozen=True)
class JobRequest:
    job: str
    state: JobState
    timeout: float = 600.0  # seconds to wait
    state_dir: str = ""  # empty: the default for this user
    store: StoreSpec | None = None  # where jobs of other hosts are looked for
    provider: ProviderSpec | None = None  # to undo what a job left that died
