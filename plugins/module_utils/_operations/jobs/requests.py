# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user asks for, parsed: sizes in bytes, times in seconds, names not yet looked up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Mapping

from ..._exports.retention_rules import Limits, Protections
from ..._exports.seals import UNCHECKED, Seals
from ..._providers.base import BootMarkers, Consistency, ExportMethod, Placement, VendorTask
from ..._providers.snapshots import Quiesce, SnapshotMethod
from ..._transfer.priority import Priority

Verify = Literal["none", "stored", "content"]
ExportMode = Literal["auto", "full", "incremental"]
OnFailure = Literal["keep", "undo"]
ImageFormat = Literal[
    "qcow2",
    "raw",
    "vmdk",
    "vmdk_sparse",
    "vhd",
    "vhd_dynamic",
    "vhdx",
    "raw_tar_gz",
    "ova",
    "ova_gz",
    "ovf",
    "vma",
    "native",
]
Drive = Literal["cdrom", "floppy"]
Compression = Literal["none", "zstd", "zlib"]
VerifyLevel = Literal["manifest", "stored", "content", "boot"]
SnapshotState = Literal["present", "absent", "reverted", "consolidated"]
VmState = Literal["powered_on", "powered_off", "absent"]  # that a VM is brought into
JobState = Literal["cancelled", "finished", "absent"]  # that a job is brought into


@dataclass(frozen=True)
class ProviderSpec:
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)  # with secrets


@dataclass(frozen=True)
class StoreSpec:
    url: str
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)  # with secrets


@dataclass(frozen=True)
class TransferOptions:
    """How bytes move; `None` leaves the choice to us."""

    parallel: int | None = None  # readers at work; one per core
    bandwidth_limit: str = ""  # a rate or a timetable of rates; empty or 0: unlimited
    bandwidth_burst: int | None = None  # bytes that may go at once; a quarter of a second's worth
    priority: Priority = "normal"
    max_retries: int = 3
    idle_timeout: float = 300.0
    max_duration: float | None = None
    state_dir: str = ""  # empty: the default for this user
    job_id: str = ""  # empty: a new one
    max_jobs: int | None = None  # of one hypervisor or account at once; the provider's own limit
    controller_timeout: float = 0.0  # seconds without a sign of whoever started the job; 0: it needs nobody
    watcher: str = ""  # by which whoever started the job knows its record


@dataclass(frozen=True)
class SnapshotOptions:
    """Of an export: the snapshot that it is of."""

    name: str = ""  # a template, of one that is made; empty: the default
    source: str = ""  # of one that is there
    memory: bool = False
    keep: int = 0  # of ours, with the new one; 0: the new one goes, and others are left alone


@dataclass(frozen=True)
class ExportRequest:
    provider: ProviderSpec
    store: StoreSpec
    vm: str
    disks: tuple[str, ...] | None = None  # ids or the provider's names; None: all
    name: str = ""
    max_age: float | None = None
    mode: ExportMode = "auto"
    full_after: float = 30 * 86400.0  # seconds: an older full export gets no further increment
    max_chain: int = 30  # increments on one full export
    spot_check: int = 32  # leaves that are read although they are said to be unchanged
    track_changes: bool = True  # have the provider remember this point in time, for the next increment
    consistency: Consistency = "auto"
    shutdown_timeout: float | None = None  # seconds for a guest that runs to shut down; None: it is not asked to
    format: ImageFormat = "qcow2"
    compression: Compression = "none"
    compression_level: int | None = None  # as the library counts; None: the usual one
    verify: Verify = "stored"
    tags: tuple[str, ...] = ()
    purpose: str = ""
    resume_window: float = 3600.0  # seconds for which the point in time is held after the job died
    snapshot: SnapshotOptions | None = None  # None: the VM as it is
    on_failure: OnFailure = "keep"  # what becomes of what was made so far
    part_size: int | None = None  # bytes; None: as memory and the store's limits allow
    method: ExportMethod = "auto"  # how the disks are read
    vendor_task: VendorTask | None = None  # of that method
    attach: bool = False  # follow a run that is exporting this VM already
    copies_to: tuple[StoreSpec, ...] = ()  # further stores
    detach: tuple[Drive, ...] = ()  # that the description is to be without
    seals: Seals = UNCHECKED
    transfer: TransferOptions = TransferOptions()

    @property
    def keeps(self) -> bool:
        """Whether what was made so far stays if the export fails. A snapshot that is made for it goes with the run."""
        made = self.snapshot is not None and not self.snapshot.source
        return self.on_failure == "keep" and self.resume_window > 0 and not made


@dataclass(frozen=True)
class ImportRequest:
    provider: ProviderSpec
    store: StoreSpec
    placement: Placement
    export: str = ""  # an export's id or name; empty: the newest
    vm: str = ""  # name or id of the VM that was exported; empty: the only one there
    source_vm: Mapping[str, Any] | None = None  # described; check mode takes it for the export that is not there yet
    detach: tuple[Drive, ...] = ()  # that the VM is to be without
    networks: tuple[str, ...] | None = None  # of a VM that is made of a disk image; None: the default
    method: ExportMethod = "auto"  # how the disks are written
    vendor_task: VendorTask | None = None  # of that method
    seals: Seals = UNCHECKED
    transfer: TransferOptions = TransferOptions()


@dataclass(frozen=True)
class MigrateRequest:
    source: ProviderSpec
    destination: ProviderSpec
    vm: str
    placement: Placement  # without a name, that of the VM
    disks: tuple[str, ...] | None = None  # ids or the provider's names; None: all
    consistency: Consistency = "auto"
    verify: Literal["none", "content"] | None = None  # None: content where the destination can read back what it wrote
    detach: tuple[Drive, ...] = ()  # that the new VM is to be without
    networks: tuple[str, ...] | None = None  # of a VM that is disk images; None: the default
    transfer: TransferOptions = TransferOptions()


@dataclass(frozen=True)
class VerifyRequest:
    store: StoreSpec
    level: VerifyLevel = "content"
    export: str = ""  # an export's id or name; empty: the newest
    vm: str = ""  # name or id of the VM that was exported; empty: the only one there
    max_age: float | None = None  # seconds for which an earlier pass is enough
    provider: ProviderSpec | None = None  # where it boots
    storage: str = ""  # for its disks meanwhile; empty: the provider's default
    markers: BootMarkers = field(default_factory=BootMarkers)
    seals: Seals = UNCHECKED
    transfer: TransferOptions = TransferOptions()


@dataclass(frozen=True)
class VmRequest:
    provider: ProviderSpec
    vm: str
    state: VmState
    timeout: float = 300.0  # seconds for the guest to power off
    force: bool = False  # cut its power then
    remove_disks: bool = False  # with an absent VM


@dataclass(frozen=True)
class JobRequest:
    job: str
    state: JobState
    timeout: float = 600.0  # seconds to wait
    state_dir: str = ""  # empty: the default for this user
    store: StoreSpec | None = None  # where jobs of other hosts are looked for
    provider: ProviderSpec | None = None  # to undo what a job left that died


@dataclass(frozen=True)
class SnapshotRequest:
    provider: ProviderSpec
    vm: str
    state: SnapshotState
    name: str = ""  # a template; empty: the default of a new one, or all of ours
    quiesce: Quiesce = "auto"
    memory: bool = False
    method: SnapshotMethod = "auto"
    keep: int | None = None  # of ours; None: all
    timeout: float = 600.0  # seconds


@dataclass(frozen=True)
class CleanupRequest:
    """`vm`, `tags` and `purpose` say which exports are looked at; empty: all."""

    store: StoreSpec
    limits: Limits
    protections: Protections
    vm: tuple[str, ...] = ()  # names or ids
    tags: tuple[str, ...] = ()
    purpose: str = ""
    merge: bool = False  # what goes and is stood on, into what stands on it
    orphans: bool = False
    provider: ProviderSpec | None = None  # whose orphans are removed, too
    seals: Seals = UNCHECKED
