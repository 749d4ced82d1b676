# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a provider is: a hypervisor or cloud that has VMs, seen as blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Collection, ContextManager, Literal, Mapping, Protocol, Sequence

from .._blocks import LEAF, BlockSink, BlockSource, PartWriter
from .._errors import VmferryError
from .finding import Finding
from .job import Job
from .snapshots import Snapshot, SnapshotService
from .spec import DiskSpec, VmSpec

if TYPE_CHECKING:
    from .._transfer.digest_check import LeafCheck
    from .._transfer.progress import DiskProgress

Consistency = Literal["auto", "quiesced", "crash_consistent", "powered_off"]


ExportMethod = Literal["auto", "direct", "vendor_task"]


@dataclass(frozen=True)
class VendorTask:
    """A task of a cloud that writes an image of a VM to a store of its own, from where it is read; or that makes disks
    of images that were written there."""

    staging: str  # where: a bucket, and a prefix in it
    poll_interval: float = 10.0  # seconds
    timeout: float = 7200.0  # seconds
    cleanup: bool = True  # whether the images go once they were read
    role: str = "vmimport"  # in which the cloud does it; empty: in none, where it can do without


class Staging(Protocol):
    """A store that images are written to for such a task."""

    def open_parts(self, key: str) -> PartWriter: ...

    def close(self) -> None: ...


OpenStaging = Callable[[str, Mapping[str, Any]], Staging]  # by its URL, and the settings that storage options have


@dataclass(frozen=True)
class Tracking:
    """What an export asks of a provider that can tell what changed. A token is a name that the provider knows."""

    since: str = ""  # the token of the export to stand on; empty: everything is wanted
    keep: bool = False  # whether a later export may ask what changed since this one


NO_SNAPSHOT = "Leave snapshot out: then the VM is exported as it is now."
_NO_TRACKING = Tracking()


@dataclass(frozen=True)
class ExportDisk:
    """`changes`: the same disk, whose extents are `unchanged` where it did not change; None where nobody can tell.
    `method`: how it is read, where the provider has several ways. `block`: bytes of what is asked for at once, where
    less than that is not to be had.
    """

    spec: DiskSpec
    source: BlockSource
    changes: BlockSource | None = None
    method: str = ""
    block: int = LEAF


@dataclass(frozen=True)
class Undone:
    """Something that a dead run had left. The last three: of an export whose point in time was held until now."""

    sentence: str
    vm: str = ""  # by name
    given_up: str = ""  # the id of its job
    attempt: str = ""

    @property
    def warning(self) -> str:
        return (
            f"The unfinished export of job {self.given_up} was given up: the point in time of {self.vm} that was held "
            "for it was ended, since there is one at a time. Its next run begins anew."
        )


class ExportSession(ABC):
    """A frozen point in time. Entering freezes, leaving removes every trace but a token that is to be kept."""

    snapshot = ""  # the name of the one that it is the point in time of
    token = ""  # under which the provider will know this point in time; empty: it will not
    at_once = 1  # so many of its disks are best read side by side, as where each is one slow stream
    lost = ""  # why it cannot tell what changed since the token it was asked about; a sentence

    vm: VmSpec  # as it was when the point in time was taken
    taken_at: float  # seconds since the epoch
    consistency: Consistency  # what was reached, never `auto`
    disks: Sequence[ExportDisk]
    native: Mapping[str, bytes]  # the provider's own description, by file name
    warnings: Sequence[str]

    @abstractmethod
    def confirm(self) -> None:
        """After the last read, before the export commits: raises if the point in time did not hold."""

    @property
    def reference(self) -> Mapping[str, str]:
        """By which `reopen_export` finds this very point in time again; no secrets. Empty: nothing will."""
        return {}

    def outlive(self, seconds: float) -> None:
        """From now on the point in time is held for so long after this process died, for another to reopen it."""

    def stay(self) -> bool:
        """Before it is left after a failure: nothing is undone, and the point in time is held as `outlive` said. False,
        and nothing stays, where that was given up already."""
        return False

    def keep_token(self) -> None:
        """Right before the export commits: from now on the token outlives the session."""


@dataclass(frozen=True)
class BootMarkers:
    """What tells that a guest has booted; all that are asked for have to be seen."""

    serial: str = ""  # a regular expression, found in what it prints on its first serial port
    agent: bool = False  # its guest agent answers
    screen: bool = False  # its screen shows something else than its firmware did
    timeout: float = 300.0  # seconds


class NotBooted(VmferryError):
    """The guest was started, and what tells that it has booted was not seen."""


@dataclass(frozen=True)
class ReadDisk:
    """A disk of an import as it is read. `check`: what its leaves have to be, where anybody knows."""

    source: BlockSource
    progress: DiskProgress
    check: LeafCheck | None = None


@dataclass(frozen=True)
class Below:
    """What a disk of an import is begun from, in the place of zeros: it has the disk of this export already, and takes
    units of so many bytes, each of them whole or not at all."""

    export: str
    unit: int


class ImportSession(ABC):
    """Fresh disks, being filled. Leaving without `commit` removes every trace."""

    takes_disks = False  # whether it writes the disks itself, by `take`, and has no sinks
    sinks: Sequence[BlockSink] = ()
    warnings: Sequence[str]

    def take(self, disks: Sequence[ReadDisk], workers: int | None, begin: Callable[[int], object]) -> None:
        """All disks in the VM's order, each read once, forwards, by so many threads (None: as the session likes).
        `begin` is told the number of the one that comes next.

        Nobody sees anything of them before `commit`. Raises `checksum_mismatch` for what a check does not fit.
        """
        raise VmferryError("internal", "Its disks are filled one by one.")

    def stand_on(self, exports: Sequence[str]) -> Sequence[Below | None]:
        """Before anything is written. `exports`: by their ids, those that the disks are increments on, the newest last,
        of disks of the same sizes. For each disk the newest of them that is there, so that the sink of that disk takes
        only what differs from it, and is a `LayeredSink`; none where it is to be told all. Empty: of all disks.
        """
        return ()

    @abstractmethod
    def commit(self) -> VmSpec:
        """Make the VM of the disks, durable, and start it if that was asked."""

    def read_back(self) -> Sequence[BlockSource]:
        """After the last write, which this ends, and before `commit`: every disk as it lies there, in the order of the
        sinks, read anew and not from what memory still holds of it. They are closed with the session, or by `commit`.
        Only of a provider that `reads_back`.
        """
        raise VmferryError("unsupported", "What was written there cannot be read back.", "Set verify: none.")

    def boot(self, markers: BootMarkers, wait: Callable[[float], object]) -> float:
        """In the place of `commit`: start a VM of the disks that is gone when the session is left, however it is left.

        The seconds until all markers were seen; `NotBooted` where they were not. `wait` sleeps for so many seconds.
        """
        raise VmferryError("unsupported", "VMs cannot be booted on trial there.", "Verify the content instead.")


@dataclass(frozen=True)
class Placement:
    """How an import lands: everything a task may vary. Options a provider does not know are refused by it."""

    name: str
    storage: str = ""  # pool or folder; empty: the provider's default
    disk_format: str = ""  # empty: the provider's default
    disk_bus: str = ""  # empty: as exported
    network_map: Mapping[str, str] = field(default_factory=dict)
    storage_map: Mapping[str, str] = field(default_factory=dict)  # by the disk's id or name
    keep_mac: bool = False
    power_on: bool = False
    firmware: str = ""  # empty: as exported
    cpu: int = 0  # 0: as exported
    memory_mb: int = 0  # 0: as exported
    folder: str = ""  # in the inventory; empty: the provider's default, as of the next three
    cluster: str = ""
    host: str = ""
    resource_pool: str = ""
    disk_provisioning: str = ""  # thin, thick, eager; empty: thin
    keep_uuid: bool = False
    stop_at: str = ""  # in a cloud: snapshot, image or instance; empty: instance
    instance_type: str = ""  # empty: the smallest that is as large as what was exported
    subnet_id: str = ""
    security_groups: Sequence[str] = ()
    key_name: str = ""
    iam_instance_profile: str = ""
    volume_type: str = ""
    encrypted: bool = False
    kms_key_id: str = ""
    vmid: int = 0  # on Proxmox VE; 0: the next that is free


class Provider(ABC):
    """Raises `VmferryError`. VMs are named as users name them: by name, UUID or inventory path."""

    name: str
    has_tags = False  # whether VMs can carry words to find them by
    has_folders = False  # whether a VM's path is its name below folders, with / between them
    takes_disks = False  # whether sessions of its imports write the disks themselves, one after the other
    reads_back = False  # whether the disks of an import can be read before it commits
    can_remove = True  # whether `remove` is there, so that check mode does not promise it
    exports_snapshots = False  # whether `open_snapshot_export` and what belongs to it are there
    exports_leave = True  # whether an export that was killed may leave anything there
    max_jobs: int  # transfers at once that do a hypervisor or an account no harm, unless the user knows better

    @property
    @abstractmethod
    def account(self) -> str:
        """What `max_jobs` counts on: one hypervisor, or one account at a cloud."""

    @property
    def site(self) -> str:
        """The same however it is reached, and no other's: within it, an id is one VM's."""
        return self.account

    @abstractmethod
    def vms(self) -> Sequence[VmSpec]:
        """All that this connection may see, in few round trips."""

    def vms_like(self, filters: Mapping[str, str]) -> Sequence[VmSpec]:
        """All that fit, and any others: for a provider that can pass filters on, which are those of `vm_info`."""
        return self.vms()

    @abstractmethod
    def describe(self, vm: str) -> VmSpec: ...

    def describe_each(self, vms: Sequence[str]) -> Sequence[VmSpec]:
        """Several, in the order asked for, in as few round trips as the provider can."""
        return [self.describe(vm) for vm in vms]

    @abstractmethod
    def check_export(self, vm: VmSpec, disks: Sequence[DiskSpec], consistency: Consistency) -> Sequence[Finding]:
        """Everything that would stop or weaken an export, without changing anything."""

    @abstractmethod
    def open_export(
        self,
        vm: VmSpec,
        disks: Sequence[DiskSpec],
        consistency: Consistency,
        job: Job,
        tracking: Tracking = _NO_TRACKING,
    ) -> ContextManager[ExportSession]: ...

    def export_by(self, method: ExportMethod, task: VendorTask | None) -> None:
        """How exports are checked and opened from now on. Raises `unsupported` where a provider has no choice, and
        `invalid_config`. `task`: of `vendor_task`."""
        if method != "auto":
            text = f"The method {method} is one of provider aws: exports from {self.name} have no other than their own."
            raise VmferryError("unsupported", text, "Leave method out.")

    def reopen_export(
        self, vm: VmSpec, disks: Sequence[DiskSpec], job: Job, tracking: Tracking, reference: Mapping[str, str]
    ) -> ContextManager[ExportSession]:
        """The point in time of a dead job's session, with all that is to be undone of it. `job`: of the same attempt.

        Entering raises `not_found` where it is not held any more. However it fails, all is left as it was found; others
        say whether that stays. `taken_at` and `consistency` are not known to the provider, but to whoever kept the
        reference.
        """
        raise VmferryError("not_found", f"{self.name} does not hold points in time of runs that died.")

    def check_snapshot_export(self, vm: VmSpec, disks: Sequence[DiskSpec], snapshot: str) -> Sequence[Finding]:
        """What would stop an export of a snapshot that is there, without changing anything."""
        return [Finding("error", f"Snapshots on {self.name} cannot be exported.", NO_SNAPSHOT, "unsupported")]

    def open_snapshot_export(
        self, vm: VmSpec, disks: Sequence[DiskSpec], snapshot: str, job: Job, reference: Mapping[str, str] | None = None
    ) -> ContextManager[ExportSession]:
        """The disks as a snapshot has them; it stays. `taken_at` is when it was made, and no token ever results.

        With the `reference` of a dead run's session, raises `not_found` where it would not be the same data.
        """
        raise VmferryError("unsupported", f"Snapshots on {self.name} cannot be exported.", NO_SNAPSHOT)

    def consistency_of(self, snapshot: Snapshot) -> Consistency:
        """What the disks of a snapshot are, as far as it can be told."""
        raise VmferryError("unsupported", f"Snapshots on {self.name} cannot be exported.", NO_SNAPSHOT)

    def changed_since(self, vm: VmSpec, disks: Sequence[DiskSpec], token: str) -> Mapping[str, int]:
        """Bytes by a disk's name, at most so many, of the disks of which it can be told without changing anything."""
        return {}

    def gone_vms(self) -> Sequence[VmSpec]:
        """Of which tokens of ours are left where a provider keeps them apart from its VMs; `tokens` and `forget` take
        them."""
        return ()

    def tokens(self, vm: VmSpec) -> Sequence[str]:
        """Ours, of any chain, that this VM has now. None where a provider does not track changes."""
        return ()

    def forget(self, vm: VmSpec, tokens: Sequence[str]) -> Sequence[str]:
        """Drop these; a sentence for each that was there. What is gone already is no error."""
        return ()

    def snapshots(self, vm: VmSpec) -> SnapshotService:
        """Raises `unsupported` where a provider has none."""
        raise VmferryError("unsupported", f"Snapshots of VMs on {self.name} are not supported.")

    @abstractmethod
    def imported(self, name: str, folder: str = "") -> tuple[VmSpec, str] | None:
        """The VM of that name, if any, and the id of the export that an import of ours made it from (or '').

        `folder`: where it would be, with a provider that has folders; empty: anywhere.
        """

    def made_otherwise(self, vm: VmSpec, placement: Placement) -> str:
        """Of a VM that `imported` found to be made of the same: what of it is not as the task asks for and never gets
        so, as a sentence; '' where nothing is. Raises for what means nothing to this provider."""
        return ""

    def import_by(self, method: ExportMethod, task: VendorTask | None, open_staging: OpenStaging | None = None) -> None:
        """How imports are checked and opened from now on, and what is looked for of those that died. Raises as
        `export_by` does. `open_staging`: nothing is imported without."""
        if method != "auto":
            text = f"The method {method} is one of provider aws: imports into {self.name} have no other than their own."
            raise VmferryError("unsupported", text, "Leave method out.")

    @abstractmethod
    def check_import(self, vm: VmSpec, placement: Placement, export_id: str) -> Sequence[Finding]: ...

    @abstractmethod
    def open_import(
        self, vm: VmSpec, native: Mapping[str, bytes], placement: Placement, export_id: str, job: Job
    ) -> ContextManager[ImportSession]:
        """`vm` as it was exported; one sink per disk of it, in its order."""

    def settled(self, vm: VmSpec) -> VmSpec:
        """What it is once it neither starts nor stops any more, where that takes a while."""
        return vm

    @abstractmethod
    def start(self, vm: VmSpec) -> VmSpec:
        """Power it on; what it is afterwards."""

    @abstractmethod
    def shut_down(self, vm: VmSpec, timeout: float, force: bool) -> VmSpec:
        """Ask its guest to power off, and wait; what it is afterwards.

        A guest that still runs after so many seconds has its power cut where that is asked; else `timeout` is raised.
        """

    def check_remove(self, vm: VmSpec, disks: bool) -> None:
        """Raises what `remove` would before it touches anything, where more than the VM's power tells that."""

    @abstractmethod
    def remove(self, vm: VmSpec, disks: bool) -> Sequence[str]:
        """Forget a VM that is off, with the disks that are its alone if that is asked; a sentence for each that stays.

        Raises `conflict` for a VM that is not off, `busy` where a living job of ours works on it.
        """

    @abstractmethod
    def clean_up(
        self, vm: VmSpec, *, held_by: Collection[str] | None = None, dead: Collection[str] = ()
    ) -> Sequence[Undone]:
        """Undo what dead runs of ours left on this VM. Raises `busy` for a living one's.

        `held_by`: of what is held for a run that would go on with it, only what these attempts left; None: all of it.
        `dead`: attempts that are dead as far as their store knows. That counts where the provider cannot tell: of runs
        on other hosts.
        """

    @abstractmethod
    def clean_up_imports(self) -> Sequence[tuple[str, str]]:
        """Undo what dead imports of ours left on this host; of each the VM that it was to make, and a sentence."""

    @abstractmethod
    def undo(self, job_id: str) -> Sequence[str]:
        """Undo what this job, which is dead, left on this host; a sentence each. Raises `busy` if it lives."""

    def close(self) -> None:
        """Release the connection."""
