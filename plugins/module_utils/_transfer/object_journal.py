# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an object's transfer has sent so far, on this host: from it the next one goes on. One line of JSON for a part.

It is bound to where the object comes from and goes to. A line that is torn, or is missing because the power failed,
makes that its part is sent again. Nothing in it is believed without the store's word: `PartWriter.confirms`.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any, Mapping

from .._blocks import Part, PartReceipt
from .._errors import WAIT_OR_CANCEL, VmferryError
from .record import make_private, unwritable

FOLDER = "transfers"
_NO_ENTRY = (
    ValueError,
    TypeError,
    OverflowError,
    RecursionError,
)  # of what reads one: numbers may be infinite, lists deep
VERSION = 2  # since a part's proof is of all up to its end
_LONGEST = 64 * 1024 * 1024  # bytes of a journal that are read
KEPT = 30 * 86400.0  # seconds; then what was left is nobody's


@dataclass(frozen=True)
class Place:
    """Where an object is made: the URL of its store, and its key there."""

    store: str
    key: str


@dataclass(frozen=True)
class Begun:
    """An earlier transfer: the writer's token, how it cut the object, what it had sent; which job was the last one."""

    binding: str
    token: str
    part: int  # bytes of each but the last
    receipts: Mapping[int, PartReceipt]
    place: Place
    job: str

    @property
    def known(self) -> int:
        """Bytes, up to the end of the last part."""
        return max((one.part.offset + one.part.size for one in self.receipts.values()), default=0)


class ObjectJournal:
    """Held by one transfer at a time, through a lock that ends with its process."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor, self._lock, self._gone = path, descriptor, Lock(), False

    @classmethod
    def open(cls, state_dir: Path, target: str) -> ObjectJournal:
        """`target`: the URL of the object that is made. `busy` where another transfer makes it now."""
        folder = state_dir / FOLDER
        try:
            for one in (state_dir, folder):
                make_private(one)
        except OSError as error:
            raise unwritable(state_dir, error) from error
        return cls.at(folder / f"{sha256(target.encode()).hexdigest()[:40]}.jsonl", target)

    @classmethod
    def at(cls, path: Path, target: str) -> ObjectJournal:
        """As `open`."""
        try:
            while True:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with suppress(FileNotFoundError):
                    if path.stat().st_ino == os.fstat(descriptor).st_ino:
                        return cls(path, descriptor)
                os.close(descriptor)  # removed by whoever had it, between the two
        except BlockingIOError as error:
            os.close(descriptor)
            raise VmferryError("busy", f"Another job is writing {target}.", WAIT_OR_CANCEL) from error
        except OSError as error:
            raise unwritable(path.parent.parent, error) from error

    def begun(self, binding: str, window: float) -> tuple[Begun | None, bool]:
        """What is there, and whether it can be gone on with: it is of the same `binding`, and no older than `window`
        seconds."""
        with suppress(OSError):
            age = time.time() - os.fstat(self._descriptor).st_mtime
            found = self.read()
            return found, found is not None and found.binding == binding and age <= window
        return None, False

    def read(self) -> Begun | None:
        """Raises OSError."""
        return _parsed(os.pread(self._descriptor, _LONGEST, 0))

    def begin(self, binding: str, token: str, part: int, place: Place, job: str) -> None:
        self._truncate()
        at = {"store": place.store, "key": place.key}
        self._append({"version": VERSION, "binding": binding, "token": token, "part": part, **at, "job": job})

    def go_on(self, job: str) -> None:
        """What is there is that job's from now on."""
        self._append({"job": job})

    def took(self, receipt: PartReceipt) -> None:
        part = receipt.part
        self._append([part.number, part.offset, part.size, receipt.proof.hex(), receipt.etag])

    def forget(self) -> None:
        with suppress(OSError):
            self._path.unlink()
        self._gone = True

    def close(self) -> None:
        with suppress(OSError):
            # By that name there may be another's by now, once this one is gone.
            if not self._gone and os.fstat(self._descriptor).st_size == 0:
                self._path.unlink()
        os.close(self._descriptor)

    def _truncate(self) -> None:
        with suppress(OSError):
            os.ftruncate(self._descriptor, 0)

    def _append(self, entry: Any) -> None:
        """What cannot be noted, for example on a full disk, is sent again by the next run."""
        with self._lock, suppress(OSError):
            os.write(self._descriptor, (json.dumps(entry) + "\n").encode())


def left_by(state_dir: Path, job: str) -> list[tuple[Path, Begun]]:
    """What that job was the last one to write, and did not finish."""
    found = []
    with suppress(OSError):
        for path in sorted((state_dir / FOLDER).glob("*.jsonl")):
            with suppress(OSError):
                begun = _parsed(path.read_bytes()[:_LONGEST])
                if begun is not None and begun.job == job:
                    found.append((path, begun))
    return found


def remove_old_journals(state_dir: Path) -> None:
    limit = time.time() - KEPT
    with suppress(OSError):
        for path in (state_dir / FOLDER).glob("*.jsonl"):
            with suppress(OSError):
                if path.stat().st_mtime < limit:
                    path.unlink()


def _parsed(text: bytes) -> Begun | None:
    head, *lines = text.split(b"\n")
    try:
        fields = json.loads(head)
        place, job = Place(str(fields["store"]), str(fields["key"])), str(fields["job"])
        begun = Begun(str(fields["binding"]), str(fields["token"]), int(fields["part"]), {}, place, job)
        if fields["version"] != VERSION:
            return None
    except (*_NO_ENTRY, KeyError):
        return None
    receipts: dict[int, PartReceipt] = {}
    for line in lines:
        with suppress(*_NO_ENTRY):
            told = json.loads(line)
            if isinstance(told, dict):
                job = str(told.get("job", job))
                continue
            number, offset, size, proof, etag = told
            part = Part(int(number), int(offset), int(size))
            receipts[part.number] = PartReceipt(part, bytes.fromhex(proof), str(etag))
    return replace(begun, receipts=receipts, job=job)
