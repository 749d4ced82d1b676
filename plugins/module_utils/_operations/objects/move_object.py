# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One object on its way into a store: gone on with, proved, complete; or left, or undone."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Callable, ContextManager, Mapping, Protocol, cast

from ..._blocks import LEAF, FileWriter, ObjectInfo, PartReceipt, PartWriter
from ..._errors import VmferryError
from ..._stores.base import Store
from ..._transfer.digest_bytes import digest_of
from ..._transfer.failpoints import failpoint
from ..._transfer.move_bytes import ByteSource, Cut, Moved, Seen, move_bytes
from ..._transfer.object_journal import Begun
from ..._transfer.progress import DiskProgress
from ..jobs.running_job import RunningJob
from .byte_sources import StoredObject, WrittenBytes
from .stored_checksums import SHA256
from .unfinished import Unfinished

RESUME_WINDOW = 86400.0  # seconds, unless asked for otherwise
SMALL = 5 * 1024 * 1024  # bytes; what is sent by one request, and begun anew if that fails


class VersionedSource(ByteSource, Protocol):
    @property
    def version(self) -> str:
        """Is another once the bytes are; '' where nobody can tell."""

    def insist_on_version(self) -> None:
        """Raises `conflict` where it is another than it was."""


@dataclass(frozen=True)
class Target:
    store: Store
    key: str
    is_path: bool  # it keeps no metadata
    any_offset: bool  # it takes bytes at any offset

    @property
    def url(self) -> str:
        return self.store.object_url(self.key)


@dataclass(frozen=True)
class Wanted:
    """How an object is to be sent."""

    metadata: Mapping[str, str] = field(default_factory=dict)
    checksum: str = ""  # the SHA-256 that it must have, in hex; '' where nobody said
    known: str = ""  # that it has, read before; it is noted with the object
    note: bool = False  # the SHA-256 of what was sent with the object, where that can still be done when it is known
    resume_window: float | None = 0.0  # seconds; 0: nothing is kept if it fails; None: as suits the store
    read_back: bool = False  # where the store does not vouch for what it took
    same: str = ""  # SHA-256 of what is there: if it is this one, it stays
    if_absent: bool = False  # what is there by then stays, whatever it is
    seen: Seen | None = None  # is told the SHA-256 of each 64 KiB


@dataclass(frozen=True)
class Sent:
    info: ObjectInfo
    sha256: str
    bytes_sent: int
    bytes_kept: int
    duration: float
    sent_as: str = ""  # parts, joined_parts or stream; '' where it was one request


class ObjectMove:
    def __init__(self, job: RunningJob, source: VersionedSource, target: Target, wanted: Wanted) -> None:
        self._job, self._source, self._target, self._wanted = job, source, target, wanted
        self._interrupt: Callable[[], object] = lambda: None
        self._sent_as = ""
        self._metadata = dict(wanted.metadata)
        noted = wanted.known or wanted.checksum
        if noted and not target.is_path:
            self._metadata[SHA256] = noted

    def run(self, progress: DiskProgress) -> Sent | None:
        """None where what is there is the same already. Raises `VmferryError`; `checksum_mismatch` where the bytes
        are not those that were wanted, before they become the object."""
        started = time.monotonic()
        if self._is_one_request:
            put = self._put(progress)
            if put is None:
                return None
            info, moved = put
        else:
            with self._unfinished() as unfinished:
                done = self._send(unfinished, progress)
            if done is None:
                return None
            info, moved = done
        self._read_back(info, moved, progress)
        sent = self._source.size - moved.bytes_kept
        return Sent(info, moved.sha256, sent, moved.bytes_kept, time.monotonic() - started, self._sent_as)

    @property
    def _is_one_request(self) -> bool:
        return self._source.size <= SMALL and not self._target.any_offset

    def has_begun(self) -> bool:
        """Whether an earlier run left something that this one would go on with."""
        if self._is_one_request:
            return False
        with self._unfinished() as unfinished:
            return unfinished.fits()

    def _put(self, progress: DiskProgress) -> tuple[ObjectInfo, Moved] | None:
        data = bytearray(self._source.size)
        self._source.read_into(0, memoryview(data))
        progress.read(len(data))
        digest = sha256(data).hexdigest()
        if self._wanted.seen is not None:
            self._wanted.seen(0, [sha256(data[at : at + LEAF]).digest() for at in range(0, len(data), LEAF)])
        self._insist_on(digest)
        metadata = {**self._metadata, SHA256: digest}
        if self._is_taken():
            return None
        conditional = self._is_conditional
        try:
            info = self._target.store.put(self._target.key, bytes(data), if_absent=conditional, metadata=metadata)
        except VmferryError as error:
            if conditional and error.kind == "conflict":
                return None
            raise
        progress.sent(len(data))
        progress.settled(len(data))
        return info, Moved(digest, (), 0)

    def _insist_on(self, digest: str) -> None:
        self._source.insist_on_version()
        for expected, what in ((self._wanted.checksum, "was asked for"), (self._wanted.known, "was expected")):
            if expected and digest != expected:
                raise VmferryError(
                    "checksum_mismatch",
                    f"The SHA-256 of what was read for {self._target.url} is {digest}; {expected} {what}.",
                    "Nothing was stored. The source is another than was meant, or is damaged.",
                )

    def _unfinished(self) -> ContextManager[Unfinished]:
        known = self._wanted.known
        which = f"sha256:{known}" if known else self._source.version
        noted = sorted(self._metadata.items())
        binding = f"{self._target.url} {which} {self._source.size} {self._cut.sizes.other} {noted}"
        return Unfinished.of(self._job, self._target.store, self._target.key, binding, self._window)

    @property
    def _cut(self) -> Cut:
        return Cut.of(self._source.size, self._job.capabilities, self._target.any_offset, self._job.options.parallel)

    def _send(self, unfinished: Unfinished, progress: DiskProgress) -> tuple[ObjectInfo, Moved] | None:
        cut = self._cut
        writer, kept, sparse = self._writer(unfinished, cut.sizes.other)
        try:
            with self._job.flow.on_stop(self._interrupt):
                moved = move_bytes(
                    self._source,
                    writer,
                    cut,
                    self._job.flow,
                    progress,
                    kept=kept,
                    kept_source=self._kept_source(writer) if kept else None,
                    taken=unfinished.took,
                    seen=self._wanted.seen,
                    sparse=sparse,
                )
            self._insist_on(moved.sha256)
            if (self._wanted.same and moved.sha256 == self._wanted.same) or self._is_taken():
                unfinished.drop(writer)
                return None
            if self._wanted.note and self._target.store.metadata_last:
                self._metadata[SHA256] = moved.sha256
            failpoint("object-complete")
            with progress.rest():
                completed = self._completed(writer, moved)
            if completed is None:
                unfinished.drop(writer)
                return None
            failpoint("object-in-place")
        except BaseException as error:
            unfinished.keep_or_undo(writer, error)
            raise
        unfinished.done()
        return completed, moved

    def _completed(self, writer: PartWriter, moved: Moved) -> ObjectInfo | None:
        """None where something is there by now that shall stay."""
        try:
            return writer.complete(moved.receipts, self._source.size, if_absent=self._is_conditional)
        except VmferryError as error:
            if self._is_conditional and error.kind == "conflict" and self._is_taken():
                return None
            raise

    @property
    def _is_conditional(self) -> bool:
        return self._wanted.if_absent and self._job.capabilities.conditional_put

    def _is_taken(self) -> bool:
        """Looked at right before, too, since not every server keeps the condition."""
        return self._wanted.if_absent and self._target.store.stat(self._target.key) is not None

    @property
    def _window(self) -> float:
        """Seconds. What was sent of one version must not become half of another."""
        return self._asked_window if self._wanted.known or self._source.version else 0.0

    @property
    def _asked_window(self) -> float:
        """What makes all bytes move twice again is done for whoever asks for it."""
        if self._wanted.resume_window is not None:
            return self._wanted.resume_window
        return 0.0 if self._job.capabilities.joins_parts else RESUME_WINDOW

    def _writer(self, unfinished: Unfinished, step: int) -> tuple[PartWriter, Mapping[int, PartReceipt], bool]:
        """Also which parts it has already, and whether it is a new one."""
        self._sent_as = "joined_parts" if self._job.capabilities.joins_parts else "parts"
        begun = unfinished.earlier(step)
        left = None if begun is None else unfinished.resumed(begun, self._metadata)
        if begun is not None and left is not None:
            kept = {number: one for number, one in begun.receipts.items() if self._is_there(left, one)}
            if self._is_worth(begun, kept):
                count = sum(one.part.size for one in kept.values())
                unfinished.go_on(count)
                self._job.log("info", f"Going on with {self._target.url}, of which {count} bytes are there already.")
                return left, kept, False
            left.abort()
        writer = self._begun()
        unfinished.begin(writer.token, step)
        if self._asked_window > self._window:
            self._job.warn(
                f"{self._target.url} is begun anew whenever that fails: its source tells no version, by which one that "
                "was replaced meanwhile would be known."
            )
        return writer, {}, True

    def _is_worth(self, begun: Begun, kept: Mapping[int, PartReceipt]) -> bool:
        """Not where nothing of it is there, nor where all was sent and some is missing: then it may be complete, by
        another's hand, and takes no part any more."""
        all_was_sent = begun.known == self._source.size
        return bool(kept) and (len(kept) == len(begun.receipts) or not all_was_sent)

    def _begun(self) -> PartWriter:
        """A store that moves the bytes of parts more than once is sent one stream, unless the next run is to go on."""
        key = self._target.key
        if self._job.capabilities.joins_parts and not self._window:
            stream = self._target.store.open_stream(key, self._source.size, metadata=self._metadata)
            if stream is not None:
                self._interrupt, self._sent_as = stream.interrupt, "stream"
                return stream
        return self._target.store.open_parts(key, metadata=self._metadata)

    def _is_there(self, writer: PartWriter, receipt: PartReceipt) -> bool:
        """What lies in a file is read and compared when it is its turn."""
        return self._target.any_offset or writer.confirms(receipt)

    def _kept_source(self, writer: PartWriter) -> ByteSource | None:
        return WrittenBytes(cast(FileWriter, writer), self._source.size) if self._target.any_offset else None

    def _read_back(self, info: ObjectInfo, moved: Moved, progress: DiskProgress) -> None:
        if not self._wanted.read_back or self._job.capabilities.verifies_checksums:
            return
        stored = StoredObject(self._target.store, info)
        try:
            found = digest_of(stored, self._job.flow, progress.alive)
            if found != moved.sha256:
                stored.insist_on_version()
        except BaseException:  # it has the checksum that it should have, and the next run would believe that
            self._take_back(info)
            raise
        if found != moved.sha256:
            self._take_back(info)
            raise VmferryError(
                "checksum_mismatch",
                f"{self._target.url} has the SHA-256 {found} in the store; {moved.sha256} was sent. It was removed.",
                "The store did not keep what it was given. Look at its health, and at what lies between.",
            )

    def _take_back(self, info: ObjectInfo) -> None:
        """What another has put there by now is no longer ours, also in a store that keeps no condition when it writes:
        for a deletion, each compares the tag itself."""
        with self._job.undoing(self._target.url):
            try:
                self._target.store.delete(self._target.key, if_match=info.etag)
            except VmferryError as error:
                if error.kind != "conflict":
                    raise
