# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an attempt writes beside its data, so that the next run can go on with it if it is killed."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from hmac import compare_digest, digest
from threading import Thread
from typing import Any, Mapping

from ..._errors import VmferryError
from ..._exports.encryption import Encryption, read_encryption
from ..._exports.fields import Fields
from ..._exports.intent import JOURNAL
from ..._exports.manifest import StoredFile
from ..._exports.signing import JournalKey
from ..._stores.base import Store
from ..._transfer.journal import DiskJournal, KnownDisk

STATE = "attempt.json"
_PROOF = 32  # bytes


@dataclass(frozen=True)
class AttemptState:
    """What was asked for and what was settled, once the point in time was taken. Times are seconds since the epoch."""

    chain: str
    started: float
    taken_at: float
    consistency: str
    format: str
    compression: str
    compression_level: int | None
    encryption: Encryption | None  # of the chain, if it is encrypted
    tracked: bool  # whether a token was to be kept
    name: str
    tags: tuple[str, ...]
    purpose: str
    disks: tuple[tuple[str, str], ...]  # id and the provider's name
    parent: str  # an export's id, empty for a full one
    reason: str
    fell_back: bool
    reference: Mapping[str, str]  # the provider's, of the point in time
    files: tuple[StoredFile, ...]  # that are in the store already
    warnings: tuple[str, ...]
    mark: str = ""  # random: what the identifiers in its images are made of, so that nobody guesses them

    def to_json(self) -> bytes:
        encryption = self.encryption.as_dict() if self.encryption is not None else None
        return json.dumps({"schema": 1, **asdict(self), "encryption": encryption}).encode()

    @classmethod
    def parse(cls, text: bytes, where: str) -> AttemptState:
        own = Fields.parse(text, where)
        if own.number("schema") != 1:
            raise own.lie("has another schema")
        reference = own.mapping("reference")
        if not all(isinstance(value, str) for value in reference.values()):
            raise own.lie("has a reference that is not made of texts")
        return cls(
            chain=own.hex("chain", 8),
            started=own.decimal("started"),
            taken_at=own.decimal("taken_at"),
            consistency=own.one_of("consistency", "quiesced", "crash_consistent", "powered_off"),
            format=own.text("format"),
            compression=own.text("compression", "none"),
            compression_level=own.all().get("compression_level"),
            encryption=read_encryption(own),
            tracked=own.truth("tracked"),
            name=own.text("name"),
            tags=own.texts("tags"),
            purpose=own.text("purpose"),
            disks=tuple((str(pair[0]), str(pair[-1])) for pair in own.all().get("disks", []) if pair),
            parent=own.text("parent"),
            reason=own.text("reason"),
            fell_back=own.truth("fell_back"),
            reference=reference,
            files=tuple(
                StoredFile(file.path("path"), file.number("size"), file.hex("sha256", 64))
                for file in own.objects("files")
            ),
            warnings=own.texts("warnings"),
            mark=own.text("mark", ""),
        )


class AttemptJournal:
    """`folder`: of the attempt.

    With a `secret`, what was written with another one, or changed, moved or written by somebody who has none, is not
    there. Otherwise whoever signs an export would sign what others wrote into its journal.
    """

    def __init__(self, store: Store, folder: str, secret: JournalKey | None = None) -> None:
        self._store, self._folder, self._secret = store, folder, secret

    def expect(self) -> None:
        """It is about to be written: a key that takes long to make is begun while the caller does something else."""
        if self._secret is not None:
            with suppress(RuntimeError):  # the process may have no more threads: then it is made when it is needed
                Thread(target=self._make_key, args=(self._secret,), name="vmferry-journal-key", daemon=True).start()

    def _make_key(self, secret: JournalKey) -> None:
        with suppress(VmferryError):  # whoever needs it is told
            secret(self._attempt)

    def begin(self, state: AttemptState) -> None:
        self._write(STATE, state.to_json())

    def state(self) -> AttemptState | None:
        """None where the attempt did not come so far, or where what it wrote cannot be read."""
        text = self._read(STATE)
        if text is None:
            return None
        try:
            return AttemptState.parse(text, self._store.object_url(self._key(STATE)))
        except (VmferryError, TypeError, IndexError, KeyError):
            return None

    def of_disk(self, disk_id: str, binding: str, token: str) -> DiskJournal:
        return DiskJournal(self._write, disk_id, binding, token)

    def known_disk(self, disk_id: str) -> KnownDisk | None:
        return KnownDisk.read(self._read, disk_id)

    def _write(self, name: str, data: bytes) -> None:
        key = self._key(name)
        self._store.put_volatile(key, data + self._proof(key, data))

    def _read(self, name: str) -> Any:
        key = self._key(name)
        try:
            text = self._store.get(key)
        except VmferryError as error:
            if error.kind in ("not_found", "invalid_config"):  # or longer than anything that was written
                return None
            raise
        data = text[: len(text) - _PROOF] if self._secret else text
        return data if compare_digest(text[len(data) :], self._proof(key, data)) else None

    @property
    def _attempt(self) -> str:
        return self._folder.rsplit("/", 1)[-1]

    def _key(self, name: str) -> str:
        return f"{self._folder}/{JOURNAL}{name}"

    def _proof(self, key: str, data: bytes) -> bytes:
        """HMAC-SHA-256 of the key and the SHA-256 of the data; nothing without a secret."""
        if self._secret is None:
            return b""
        return digest(self._secret(self._attempt), key.encode() + sha256(data).digest(), "sha256")
