# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disks of an instance as an export reads them: as snapshots of one moment have them, by EBS direct.

The snapshots are made for the export and removed with it, however it ends; but for those that the next increment is to
ask since, which stay until that is done. A run that is killed leaves them, tagged, for the next one to go on with.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from types import TracebackType
from typing import Callable, Dict, List, Mapping, Sequence

from ..._errors import VmferryError
from ..._transfer.failpoints import failpoint
from ..._transfer.flow import Flow
from ..base import Consistency, ExportDisk, ExportSession, Tracking
from ..job import Job
from ..spec import DiskSpec, VmSpec
from .change_token import since
from .disk_reading import METHOD, DiskReading, with_sizes
from .export_checks import NO_QUIESCE, QUIESCE_HINT, SHUT_DOWN
from .native_files import native_files
from .session import Session
from .snapshot_hold import SnapshotHold
from .snapshot_owner import OWNER, RELEASED, TEMPORARY, TOKEN, owner_words, tags_of_export
from .snapshot_set import APPEARING, EbsSnapshot, find, look_at, make_set, remove, tag, wait_until_completed
from .tags import ATTEMPT, POWER, STATE

LOOK_EVERY = 2.0
TURN, TURNS = 15.0, 5  # seconds, and how often it is tried


class AwsExport(ExportSession):
    def __init__(
        self,
        session: Session,
        describe: Callable[[str], VmSpec],
        vm: VmSpec,
        disks: Sequence[DiskSpec],
        consistency: Consistency,
        job: Job,
        tracking: Tracking,
        flow: Flow | None,
        reference: Mapping[str, str] | None = None,
    ) -> None:
        """`reference`: of the session of a dead run, whose snapshots it is to read."""
        self._session, self._describe = session, describe
        self._chosen, self._wanted, self._job, self._tracking = tuple(disks), consistency, job, tracking
        self._flow, self._left = flow or Flow(), reference
        self.vm = vm
        self.warnings: List[str] = []
        self.native: Mapping[str, bytes] = {}
        self.disks: Sequence[ExportDisk] = ()
        self._set: Dict[str, EbsSnapshot] = {}  # that are read, by the disk's name
        self._made: List[str] = []  # ids of all that were made
        self._stays = self._kept = False
        self._hold = SnapshotHold(lambda tags: self._tag(tags, "Holding"))
        self._may_have_more = False  # of the same attempt, that nobody told us of
        self._cleanup = ExitStack()

    def __enter__(self) -> AwsExport:
        self._stays = self._left is not None  # as it was found, should it fail until it is open
        with ExitStack() as stack:
            try:
                self._open(stack)
            except VmferryError as error:
                left = self._undone(stack)
                if not left:
                    raise
                text = f"{error.message} {left}"
                raise VmferryError(error.kind, text, error.hint, retryable=error.retryable) from error
            self._cleanup = stack.pop_all()
        self._stays = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._cleanup.close()
        except VmferryError as left:
            if error is None:
                raise
            self.warnings.append(self._words_of_left(left))

    def confirm(self) -> None:
        """Every block was proved as it was read, and a snapshot never changes."""

    @property
    def reference(self) -> Mapping[str, str]:
        found = " ".join(f"{one.volume}={one.id}" for one in self._set.values())
        return {"kind": METHOD, "snapshots": found, "token": self.token}

    def outlive(self, seconds: float) -> None:
        self._hold.begin(seconds)

    def stay(self) -> bool:
        self._stays = True
        self._hold.end()
        try:
            self._tag({OWNER: RELEASED, **self._hold.until()}, "Holding")
        except VmferryError as error:  # whoever looks at the process sees that it is gone, too
            self.warnings.append(error.message)
        return True

    def keep_token(self) -> None:
        if self.token:
            power = "powered_off" if self.consistency == "powered_off" else ""
            self._tag({STATE: TOKEN, **({POWER: power} if power else {})}, "Keeping")
            self._kept = True

    def _open(self, stack: ExitStack) -> None:
        self.vm = self._described()
        chosen = self._still_there()
        if self._left is None:
            self._freeze(stack, chosen)
        else:
            self._take_over(stack, chosen, self._left)
        if self._tracking.keep and (self._left is None or self._left.get("token")):
            self.token = self._job.token
        self.native = native_files(self._session, self.vm)
        self._open_disks(stack, chosen)

    def _described(self) -> VmSpec:
        return self._describe(self.vm.id)

    def _still_there(self) -> Sequence[DiskSpec]:
        now = {disk.name: disk for disk in self.vm.disks}
        chosen = [now[disk.name] for disk in self._chosen if disk.name in now]
        if len(chosen) != len(self._chosen):
            raise VmferryError("conflict", f"{self.vm.name} lost a disk meanwhile.", "Export it again.", retryable=True)
        return chosen

    def _freeze(self, stack: ExitStack, chosen: Sequence[DiskSpec]) -> None:
        before = self.vm
        if self._wanted == "quiesced":
            raise VmferryError("unsupported", NO_QUIESCE.format(before.name), QUIESCE_HINT)
        self._insist_on_off()
        stack.callback(self._leave)
        self._make(chosen)
        self.taken_at = time.time()
        failpoint("snapshots_begun")
        self.vm = self._described()
        off = (before.power_state, self.vm.power_state) == ("powered_off", "powered_off")
        started = before.details["launched"] != self.vm.details["launched"]
        self.consistency = "powered_off" if off and not started else "crash_consistent"
        if self._wanted == "powered_off" != self.consistency:
            raise VmferryError("conflict", f"{self.vm.name} was started meanwhile.", SHUT_DOWN)
        ids = [self._set[disk.name].id for disk in chosen]
        done = wait_until_completed(self._session, self._flow.sleep, ids, self.vm.name)
        self._set = {disk.name: one for disk, one in zip(chosen, done)}
        failpoint("snapshots_made")

    def _tags(self) -> Dict[str, str]:
        """Of the snapshots, from the call on that makes them."""
        return tags_of_export(self._job, self.vm.id)

    def _insist_on_off(self) -> None:
        if self._wanted == "powered_off" != self.vm.power_state:
            text = f"{self.vm.name} is {self.vm.power_state}, not powered_off."
            raise VmferryError("conflict", text, SHUT_DOWN)

    def _make(self, chosen: Sequence[DiskSpec]) -> None:
        """Each once: a request whose answer is lost is sent again, and EC2 makes another set for it."""
        self._may_have_more = True
        try:
            made = self._made_in_turn(chosen)
        except VmferryError as error:
            if error.retryable:  # it tells of the last request alone, and an earlier one may have been heard
                self._await_appearance()
            raise
        self._made = [one.id for one in made]
        of_volume = {one.volume: one for one in made}
        missing = [disk.name for disk in chosen if disk.source not in of_volume]
        if missing:
            text = f"AWS made no snapshot of {', '.join(missing)} of {self.vm.name}."
            raise VmferryError("conflict", text, "Look whether its volumes changed, and export again.", retryable=True)
        self._set = {disk.name: of_volume[disk.source] for disk in chosen}

    def _made_in_turn(self, chosen: Sequence[DiskSpec]) -> List[EbsSnapshot]:
        """AWS takes one snapshot of a volume in so many seconds."""
        tags = self._tags()
        for _refused in range(TURNS - 1):
            try:
                return make_set(self._session, self.vm, chosen, tags)
            except VmferryError as error:
                if error.kind != "rate_limited":
                    raise
            self._flow.sleep(TURN)
        return make_set(self._session, self.vm, chosen, tags)

    def _await_appearance(self) -> None:
        deadline = time.monotonic() + APPEARING
        while not self._found() and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY)

    def _found(self) -> List[EbsSnapshot]:
        return find(self._session, f"Looking at the snapshots of {self.vm.name}", attempt=[self._job.attempt])

    def _take_over(self, stack: ExitStack, chosen: Sequence[DiskSpec], left: Mapping[str, str]) -> None:
        told = dict(one.split("=", 1) for one in left.get("snapshots", "").split() if "=" in one)
        found = {one.volume: one for one in look_at(self._session, f"Looking at {self.vm.name}", list(told.values()))}
        for disk in chosen:
            one = found.get(disk.source)
            if one is None or one.state != "completed" or one.tags.get(ATTEMPT) != self._job.attempt:
                raise VmferryError("not_found", f"The snapshots of {self.vm.name} that a dead run had made are gone.")
            self._set[disk.name] = one
        self._made, self._may_have_more = [one.id for one in self._set.values()], True
        stack.callback(self._leave)
        self._tag({OWNER: owner_words(), STATE: TEMPORARY}, "Taking over")
        failpoint("snapshots_taken_over")
        self.taken_at, self.consistency = time.time(), "crash_consistent"

    def _open_disks(self, stack: ExitStack, chosen: Sequence[DiskSpec]) -> None:
        known = since(self._session, self.vm, chosen, self._tracking.since)
        reading = DiskReading(self._session, self._flow, self.vm.name, self._set, ahead=self._left is not None)
        stack.callback(reading.close)
        self.disks, self.lost = reading.open(chosen, known), known.lost or reading.lost
        self.vm = with_sizes(self.vm, self.disks)

    def _tag(self, tags: Mapping[str, str], verb: str) -> None:
        tag(self._session, f"{verb} the snapshots of {self.vm.name}", [one.id for one in self._set.values()], tags)

    def _leave(self) -> None:
        self._hold.end()
        if self._stays:
            if not self.disks:  # it never was opened, and another is to go on with them or to remove them
                self._tag({OWNER: RELEASED}, "Releasing")
            return
        failpoint("snapshots_unneeded")
        kept = {one.id for one in self._set.values()} if self._kept else set()
        try:
            remove(self._session, [one for one in self._made if one not in kept], self.vm.name)
        finally:
            if self._may_have_more:
                more = [one.id for one in self._found() if one.id not in kept]
                remove(self._session, [one for one in more if one not in self._made], self.vm.name)

    def _undone(self, stack: ExitStack) -> str:
        """A sentence on what could not be undone of an opening that failed; '' where there is none."""
        try:
            stack.close()
        except VmferryError as left:
            return self._words_of_left(left)
        return ""

    def _words_of_left(self, left: VmferryError) -> str:
        return f"Snapshots of {self.vm.name} may be left, for the next export or a cleanup to remove: {left.message}"
