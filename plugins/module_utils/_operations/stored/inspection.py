# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An export and all that it stands on, looked at again: everything that is wrong with it, not only the first thing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, Iterator, Mapping, Sequence

from ..._blocks import LEAF, BlockSink
from ..._errors import VmferryError
from ..._exports.catalog import CatalogEntry
from ..._exports.chain import ChainFault
from ..._exports.manifest import MANIFEST, DiskRecord, StoredFile
from ..._exports.proven import ProvenObject
from ..._providers.finding import Finding
from ..._providers.spec import VmSpec
from ..._stores.base import Store
from ..._transfer.damaged_leaves import DamagedLeaves
from ..._transfer.digest_file import CHUNK_LEAVES
from ..jobs.running_job import RunningJob
from .stored_disk import StoredDisk, holders, insist_on_slot, layers_of, walk_tables
from .stored_machine import read_machine
from .stored_objects import StoredParts, flaw_of_file, flaw_of_size, objects_of
from .stored_proof import copy_compared

OF_THE_EXPORT = ("checksum_mismatch", "invalid_config", "not_found")  # kinds of errors that say that it is damaged
MOST_PLACES = 1000  # of one disk that are told


@dataclass(frozen=True)
class Problem:
    """A sentence, and what it is about: '' or None where it is about nothing of that kind. Offsets are in bytes."""

    problem: str
    export: str
    disk: str = ""
    object: str = ""
    offset: int | None = None  # on the disk, as the guest sees it
    object_offset: int | None = None
    length: int | None = None
    is_of_boot: bool = False  # nothing is damaged, as far as anybody can tell

    def as_result(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "is_of_boot"}

    def as_finding(self) -> Finding:
        return Finding("error", self.problem, kind="checksum_mismatch")


class Inspection:
    """Each step goes on after what it finds, and leaves out what an earlier one has found to be damaged."""

    def __init__(
        self, job: RunningJob, store: Store, chain: Sequence[CatalogEntry], faults: Sequence[ChainFault]
    ) -> None:
        """`chain` and `faults` as `followed` gives them."""
        self._job, self._store, self._chain = job, store, chain
        self._is_whole = not faults
        self._flawed: set[str] = set()  # keys
        self.problems = [Problem(str(one.error), one.export, one.disk, MANIFEST) for one in faults]
        self.files: dict[str, str] = {}  # SHA-256 of the newest export's images, by path

    def sizes(self) -> None:
        """Every object is there and as long as it should be, and the proofs of its parts are one proof."""
        for entry in self._chain:
            for disk, path, size in objects_of(entry):
                self._note_flaw(entry, disk, path, flaw_of_size(self._store, entry.key(path), size))
            for disk, one in entry.manifest.objects:
                root = sha256(b"".join(bytes.fromhex(part.sha256) for part in one.parts)).hexdigest()
                if root != one.proof_root:
                    where = self._store.object_url(entry.key(MANIFEST))
                    text = f"{where} cannot be trusted: the proofs of the parts of {one.file} do not make its root."
                    self.tell(Problem(text, entry.manifest.export_id, disk, MANIFEST))

    def small_files(self) -> None:
        """Every byte of the digests and descriptions."""
        for entry in self._chain:
            digests = [(disk.id, disk.digests) for disk in entry.manifest.disks]
            for disk, file in [*digests, *(("", file) for file in entry.manifest.files)]:
                if entry.key(file.path) not in self._flawed:
                    self._note_flaw(entry, disk, file.path, self._flaw_of_file(entry, file))

    def images(self) -> None:
        """Every byte of every image, by the phase's objects: those of the full export first."""
        found = [(entry, disk, one) for entry in self._chain for disk, one in entry.manifest.objects]
        for number, (entry, disk, one) in enumerate(found):
            if entry.key(one.file) not in self._flawed:
                whole = self._image(entry, disk, one, number)
                if entry is self._chain[-1] and entry.key(one.file) not in self._flawed:
                    self.files[one.file] = whole

    def machine(self) -> tuple[VmSpec, Mapping[str, bytes]] | None:
        """What the VM is; None where its description is damaged."""
        entry = self._chain[-1]
        if any(entry.key(file.path) in self._flawed for file in entry.manifest.files):
            return None
        try:
            return read_machine(self._store, entry)
        except VmferryError as error:
            self._insist_on_damage(error)
            self.tell(Problem(str(error), entry.manifest.export_id, object="vm.json"))
            return None

    def contents(self, sinks: Sequence[BlockSink] = ()) -> None:
        """Every disk as a restore would read it, through all images; into `sinks`, if there are any."""
        if not self._is_whole:
            return
        for number, disk in enumerate(self._chain[-1].manifest.disks):
            layers = layers_of(self._chain, disk.id)
            paths = [layer.key(path) for layer in layers for path in (layer.record.file, layer.record.digests.path)]
            if not self._flawed.isdisjoint(paths) or not self._tables(layers):
                continue
            self._slots(layers)
            self._content(layers, number, sinks[number] if sinks else None)

    def _image(self, entry: CatalogEntry, disk: str, image: ProvenObject, number: int) -> str:
        def damaged(part: int) -> None:
            offset, size = sum(one.size for one in image.parts[:part]), image.parts[part].size
            text = f"differs from what was sent between byte {offset} and byte {offset + size}"
            self._note_flaw(entry, disk, image.file, text, (offset, size))

        parts = StoredParts(self._job, self._store, entry.key(image.file), image.parts, damaged)
        return parts.read(self._job.progress.disk(number))

    def _tables(self, layers: Sequence[StoredDisk]) -> bool:
        before = len(self.problems)
        for number, (entry, layer) in enumerate(zip(self._chain, layers)):
            try:
                walk_tables(self._store, layer, layered=number > 0)
            except VmferryError as error:
                self._insist_on_damage(error)
                self.tell(Problem(str(error), entry.manifest.export_id, layer.record.id, layer.record.file))
        return len(self.problems) == before

    def _slots(self, layers: Sequence[StoredDisk]) -> None:
        for entry, layer in zip(self._chain, layers):
            try:
                insist_on_slot(self._store, layer)
            except VmferryError as error:
                self._insist_on_damage(error)
                self.tell(Problem(str(error), entry.manifest.export_id, layer.record.id, layer.record.file))

    def _content(self, layers: Sequence[StoredDisk], number: int, sink: BlockSink | None) -> None:
        damaged, disk = DamagedLeaves(), layers[-1].record
        try:
            copy_compared(self._job, self._store, layers, sink, self._job.progress.disk(number), damaged.add)
        except VmferryError as error:
            self._insist_on_damage(error)
            self.tell(Problem(str(error), self._chain[-1].manifest.export_id, disk.id))
        places = list(_split(damaged.runs(), holders(self._store, layers), len(layers))) if damaged.count else []
        for first, end, layer in places[:MOST_PLACES]:
            self.tell(self._damage(disk, first * LEAF, min(end * LEAF, disk.size), layer))
        told = sum(end - first for first, end, _layer in places[:MOST_PLACES])
        if told < damaged.count:
            text = f"{disk.id} is damaged in more places: {damaged.count - told} more pieces of 64 KiB."
            self.tell(Problem(text, self._chain[-1].manifest.export_id, disk.id))

    def _damage(self, disk: DiskRecord, start: int, end: int, layer: int) -> Problem:
        entry = self._chain[layer]
        (path,) = (one.file for one in entry.manifest.disks if one.id == disk.id)
        text = (
            f"{disk.id} is damaged: bytes {start} to {end} are not what was read when it was exported. They lie in "
            f"{self._store.object_url(entry.key(path))}."
        )
        return Problem(text, entry.manifest.export_id, disk.id, path, offset=start, length=end - start)

    def _flaw_of_file(self, entry: CatalogEntry, file: StoredFile) -> str:
        return flaw_of_file(self._job, self._store, entry.key(file.path), file, self._job.progress.alive)

    def _note_flaw(
        self, entry: CatalogEntry, disk: str, path: str, flaw: str, place: tuple[int, int] | None = None
    ) -> None:
        """`place`: offset and length in the object."""
        if flaw:
            self._flawed.add(entry.key(path))
            text = f"{self._store.object_url(entry.key(path))} {flaw}."
            offset, length = place or (None, None)
            self.tell(Problem(text, entry.manifest.export_id, disk, path, object_offset=offset, length=length))

    def tell(self, problem: Problem) -> None:
        self.problems.append(problem)
        self._job.log("error", problem.problem)

    def _insist_on_damage(self, error: VmferryError) -> None:
        """A store that does not answer says nothing about what it holds. Once the job is stopped, nothing can go on."""
        if error.kind not in OF_THE_EXPORT or self._job.flow.error is not None:
            raise error


def _split(
    runs: Sequence[tuple[int, int]], held: Iterator[tuple[int, dict[int, int]]], layers: int
) -> Iterator[tuple[int, int, int]]:
    """Runs of leaves, cut where another layer begins to hold them. What none holds is the newest's to hide."""
    chunk: tuple[int, dict[int, int]] = next(held, (-1, {}))
    for first, end in runs:
        start, last = first, -1
        for index in range(first, end):
            number, position = divmod(index, CHUNK_LEAVES)
            while chunk[0] < number and (following := next(held, None)) is not None:
                chunk = following
            layer = chunk[1].get(position, layers - 1) if chunk[0] == number else layers - 1
            if layer != last and index > start:
                yield start, index, last
                start = index
            last = layer
        yield start, end, last
