# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest: its presence commits an export, and everything a restore relies on stands in it.

A strict superset of Artifact Manifest 1.0 (what conversion tools read), with everything of ours in one block,
`x_vmferry`. It comes from a store, so it is checked in full before anything acts on it.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Callable, Mapping

from .._blocks import LEAF
from .._errors import VmferryError
from .._images.formats import FORMATS, INNER, format_named
from .._transfer.digest_file import ALGORITHM, KEYED
from .encryption import NONCE_DIGITS, ChainKeys, Encryption, read_encryption
from .fields import Fields, lie
from .naming import is_export_id, iso_time, parse_iso_time
from .packed import ARCHIVES, EXPORT_FORMATS
from .proven import ProvenObject, ProvenPart, proof_as_dict, read_archive, read_proof
from .seals import UNCHECKED, keyring_of
from .signing import Signature, Trust, Verdict, signatures_of

MANIFEST = "manifest.json"
SCHEMA = 1
MIB = 1024 * 1024
MANIFEST_LIMIT = 64 * MIB
LARGEST_DISK = 64 << 40  # bytes; the most that any format we write can describe
COMPRESSIONS = ("none", "zstd", "zlib")
# A name, or what a provider that keeps no names has us keep of each disk.
LONGEST_TOKEN = 32768  # characters
_TOKEN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class StoredFile:
    """A small file beside the images: `vm.json`, `native/domain.xml`."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class DiskRecord:
    """One disk's image, what proves its bytes (the parts) and what proves its guest data (the digests)."""

    id: str
    name: str
    size: int  # bytes, as the guest sees it
    boot: bool
    file: str
    format: str
    bytes_stored: int  # of the image
    bytes_read: int
    bytes_changed: int
    digest_root: str
    digests: StoredFile
    parts: tuple[ProvenPart, ...]
    proof_root: str
    parent_root: str = ""  # of an increment: the digest root of the disk it was taken against
    key_nonce: str = ""  # of an encrypted image: what tells its key from those of all others
    archive: ProvenObject | None = None  # that the image lies in; it is `file` then, and has the parts
    offset: int = 0  # of the image in there; where that is within gzip, in what it unpacks to

    @property
    def digest_algorithm(self) -> str:
        return KEYED if self.key_nonce else ALGORITHM

    @property
    def object(self) -> ProvenObject:
        """In the store."""
        return self.archive or ProvenObject(self.file, self.bytes_stored, self.parts, self.proof_root)


@dataclass(frozen=True)
class Machine:
    """The VM in the few words that Artifact Manifest 1.0 has for it. The whole of it is in `vm.json`."""

    provider: str
    id: str
    name: str
    cpu: int
    memory_mb: int
    firmware: str
    secure_boot: bool = False
    guest_os: str = ""
    nics: tuple[Mapping[str, str], ...] = ()


@dataclass(frozen=True)
class Manifest:
    export_id: str
    chain_id: str
    job_id: str
    machine: Machine
    taken_at: float  # seconds since the epoch: the moment the data is of
    created_at: float  # when the manifest was written
    consistency: str
    format: str
    disks: tuple[DiskRecord, ...]
    files: tuple[StoredFile, ...]
    mode: str = "full"
    parent: str = ""
    change_token: str = ""
    compression: str = "none"  # of the images
    snapshot: str = ""  # the name of the one that was exported; empty: the VM itself was
    name: str = ""
    tags: tuple[str, ...] = ()
    purpose: str = ""
    all_disks: bool = False  # that the VM had; False also in manifests that do not tell
    verified: str = "none"
    warnings: tuple[str, ...] = ()
    version: str = ""  # of this collection
    statistics: Mapping[str, Any] = field(default_factory=dict)
    encryption: Encryption | None = None
    # As it was read; what is written gets its signatures from `Seals`.
    signatures: tuple[Signature, ...] = field(default=(), compare=False)
    signature: Verdict = field(default="none", compare=False)
    keys: ChainKeys | None = field(default=None, compare=False, repr=False)  # where the reader had the passphrase

    @property
    def objects(self) -> tuple[tuple[str, ProvenObject], ...]:
        """Those that the images lie in, each once, with the disk that it is of; '' where that is not one."""
        if self.disks and self.disks[0].archive is not None:
            return (("", self.disks[0].archive),)
        return tuple((disk.id, disk.object) for disk in self.disks)

    def to_json(self, locate: Callable[[str], str]) -> bytes:
        """`locate` says where a file beside the manifest can be opened: a path, or a URL where there is none."""
        created = iso_time(self.created_at)
        machine = {
            "cpu": self.machine.cpu,
            "firmware": self.machine.firmware,
            "secureboot": self.machine.secure_boot,
            "os_hint": self.machine.guest_os or "unknown",
        }
        if self.machine.memory_mb >= 1024:  # a whole number from 1 on there, so a smaller VM leaves it out
            machine["mem_gb"] = self.machine.memory_mb // 1024
        document = {
            "manifest_version": "1.0",
            "source": {
                "provider": self.machine.provider,
                "vm_id": self.machine.id,
                "vm_name": self.machine.name,
                "export_timestamp": iso_time(self.taken_at),
                "export_method": "vmferry.migrate",
            },
            "vm": machine,
            "disks": [
                {
                    "id": disk.id,
                    # It has no words for what lies in an archive: what a reader is told of is the archive.
                    "source_format": format_named(disk.format).extension
                    if disk.archive is None
                    else ARCHIVES[self.format],
                    "bytes": disk.object.size,
                    "local_path": locate(disk.file),
                    "boot_order_hint": order,
                    "label": disk.name,
                    "disk_type": "boot" if disk.boot else "data",
                }
                for order, disk in enumerate(self.disks)
            ],
            "nics": list(self.machine.nics),
            "warnings": [{"stage": "export", "message": text, "timestamp": created} for text in self.warnings],
            "metadata": {"job_id": self.job_id, "created_at": created, "tags": dict.fromkeys(self.tags, "")},
            "x_vmferry": self._own_block(),
        }
        return json.dumps(document, indent=1, sort_keys=False).encode() + b"\n"

    def _own_block(self) -> dict[str, Any]:
        disks = []
        for disk in self.disks:
            record = asdict(replace(disk, archive=None))
            record["digests"] = {**asdict(disk.digests), "algorithm": disk.digest_algorithm, "leaf": LEAF}
            if not disk.key_nonce:
                record.pop("key_nonce")
            del record["archive"], record["parts"], record["proof_root"]
            if disk.archive is None:
                del record["offset"]
                record["object_proof"] = proof_as_dict(disk.object)
            disks.append(record)
        archive = self.disks[0].archive if self.disks else None
        return {
            "schema": SCHEMA,
            "version": self.version,
            "export_id": self.export_id,
            "chain_id": self.chain_id,
            "job_id": self.job_id,
            "name": self.name,
            "mode": self.mode,
            "parent": self.parent,
            "change_token": self.change_token,
            "snapshot": self.snapshot,
            "taken_at": iso_time(self.taken_at),
            "created_at": iso_time(self.created_at),
            "consistency": self.consistency,
            "format": self.format,
            "compression": self.compression,
            **({} if self.encryption is None else {"encryption": self.encryption.as_dict()}),
            "verified": self.verified,
            "tags": list(self.tags),
            "purpose": self.purpose,
            "all_disks": self.all_disks,
            "machine": asdict(self.machine),
            **({} if archive is None else {"archive": archive.as_dict()}),
            "disks": disks,
            "files": [asdict(one) for one in self.files],
            "statistics": dict(self.statistics),
        }


def read_manifest(text: bytes, where: str, trust: Trust = UNCHECKED) -> Manifest:
    """Raises `invalid_config` for anything this version cannot vouch for, and before it `Untrusted`. `where` is the
    manifest's URL."""
    document = Fields.parse(text, where)
    signature = trust.check(document.all(), where)
    ring = keyring_of(trust)
    keys = ring.opened(document.all(), where) if ring is not None else None
    own = document.object("x_vmferry")
    if own.number("schema") != SCHEMA:
        raise VmferryError(
            "unsupported",
            f"{where} has schema {own.number('schema')}; this version reads schema {SCHEMA}.",
            "Update the collection to the version that wrote the export.",
        )
    export_id = own.text("export_id")
    if not is_export_id(export_id):
        raise lie(where, "has an export_id of another shape")
    mode, parent = own.one_of("mode", "full", "incremental"), own.text("parent", "")
    if (mode == "incremental") != is_export_id(parent) or (mode == "full" and parent):
        raise lie(where, "cannot be trusted: its mode and its parent do not go together")
    encryption = read_encryption(own)
    archive = read_archive(own)
    disks = tuple(_read_disk(disk, mode, encryption, archive) for disk in own.objects("disks"))
    _refuse_doubles(where, [disk.id for disk in disks], [disk.file for disk in disks] if archive is None else [])
    if not disks:
        raise lie(where, "has no disks")
    if encryption is not None and _read_compression(own) != "none":
        raise lie(where, "is compressed and encrypted, which is never written")
    return Manifest(
        export_id=export_id,
        chain_id=own.hex("chain_id", 8),
        job_id=own.text("job_id", ""),
        machine=_read_machine(own.object("machine")),
        taken_at=_read_time(own, "taken_at"),
        created_at=_read_time(own, "created_at"),
        consistency=own.one_of("consistency", "quiesced", "crash_consistent", "powered_off"),
        format=own.one_of("format", *EXPORT_FORMATS),
        compression=_read_compression(own),
        disks=disks,
        files=tuple(_read_file(one) for one in own.objects("files")),
        mode=mode,
        parent=parent,
        change_token=_read_token(own),
        snapshot=own.text("snapshot", ""),
        name=own.text("name", ""),
        tags=own.texts("tags"),
        purpose=own.text("purpose", ""),
        all_disks=own.truth("all_disks", False),
        verified=own.one_of("verified", "none", "stored", "content"),
        warnings=tuple(warning.text("message") for warning in document.objects("warnings")),
        version=own.text("version", ""),
        statistics=own.mapping("statistics"),
        signatures=signatures_of(document.all(), where),
        encryption=encryption,
        signature=signature if keys is None else "valid",
        keys=keys,
    )


def _read_compression(own: Fields) -> str:
    return own.one_of("compression", *COMPRESSIONS) if own.text("compression", "") else "none"


def _read_token(own: Fields) -> str:
    token = own.text("change_token", "", LONGEST_TOKEN)
    if token and not _TOKEN.fullmatch(token):
        raise own.lie("cannot be trusted: change_token is not a plain name")
    return token


def _read_disk(disk: Fields, mode: str, encryption: Encryption | None, archive: ProvenObject | None) -> DiskRecord:
    digests = disk.object("digests")
    algorithm = ALGORITHM if encryption is None else KEYED
    if digests.text("algorithm") != algorithm or digests.number("leaf") != LEAF:
        raise digests.lie("uses digests that this version does not know")
    stored, file = disk.number("bytes_stored"), disk.name("file")
    offset = disk.number("offset") if archive is not None else 0
    if archive is None:
        parts, root = read_proof(disk, stored)
    elif file == archive.file and offset + stored <= archive.size and mode == "full" and encryption is None:
        parts, root = (), ""
    else:
        raise disk.lie("does not lie in the archive that it is said to lie in")
    size = disk.number("size")
    if size > LARGEST_DISK:
        raise disk.lie("is larger than any disk")
    format = disk.one_of("format", *(FORMATS if archive is None else (*FORMATS, *INNER)))
    if encryption is not None and not format_named(format).encrypts:
        raise disk.lie("is encrypted in a format that never is")
    return DiskRecord(
        id=disk.name("id"),
        name=disk.text("name"),
        size=size,
        boot=disk.truth("boot"),
        file=file,
        format=format,
        bytes_stored=stored,
        bytes_read=disk.number("bytes_read", 0),
        bytes_changed=disk.number("bytes_changed", 0),
        digest_root=disk.hex("digest_root", 64),
        digests=_read_file(digests),
        parts=parts,
        proof_root=root,
        parent_root=disk.hex("parent_root", 64) if mode == "incremental" else "",
        key_nonce=disk.hex("key_nonce", NONCE_DIGITS) if encryption is not None else "",
        archive=archive,
        offset=offset,
    )


def _read_file(one: Fields) -> StoredFile:
    return StoredFile(one.path("path"), one.number("size"), one.hex("sha256", 64))


def _read_machine(machine: Fields) -> Machine:
    return Machine(
        provider=machine.text("provider"),
        id=machine.text("id"),
        name=machine.text("name"),
        cpu=machine.number("cpu"),
        memory_mb=machine.number("memory_mb"),
        firmware=machine.one_of("firmware", "bios", "uefi", "unknown"),
        secure_boot=machine.truth("secure_boot", False),
        guest_os=machine.text("guest_os", ""),
        nics=tuple({key: nic.text(key, "") for key in ("id", "mac", "network")} for nic in machine.objects("nics")),
    )


def _read_time(own: Fields, key: str) -> float:
    try:
        return parse_iso_time(own.text(key))
    except ValueError as error:
        raise own.lie(f"cannot be trusted: {key} is not a time like 2026-11-21T06:30:00Z") from error


def _refuse_doubles(where: str, *lists: list[str]) -> None:
    for names in lists:
        if len(set(names)) != len(names):
            raise lie(where, "names a disk or a file twice")
