# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Large objects of an export, and what proves their bytes: the SHA-256 over those of each 64 KiB, part by part."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Tuple

from .fields import Fields
from .packed import ARCHIVES

PROOF_ALGORITHM = "sha256-of-64KiB-sha256s"


@dataclass(frozen=True)
class ProvenPart:
    size: int
    sha256: str


@dataclass(frozen=True)
class ProvenObject:
    """`size` in bytes, which the parts add up to; each but the last is of whole blocks of 64 KiB."""

    file: str
    size: int
    parts: Tuple[ProvenPart, ...]
    proof_root: str

    @property
    def is_gzip(self) -> bool:
        """Whether it is an archive within `stored_gzip`."""
        return self.file.endswith(f".{ARCHIVES['ova_gz']}")

    def as_dict(self) -> dict[str, Any]:
        return {"file": self.file, "size": self.size, "object_proof": proof_as_dict(self)}


def proof_as_dict(one: ProvenObject) -> dict[str, Any]:
    return {"algorithm": PROOF_ALGORITHM, "parts": [asdict(part) for part in one.parts], "root": one.proof_root}


def read_proof(holder: Fields, size: int) -> Tuple[Tuple[ProvenPart, ...], str]:
    """The parts and their root. Raises `invalid_config`."""
    proof = holder.object("object_proof")
    if proof.text("algorithm") != PROOF_ALGORITHM:
        raise proof.lie("uses a proof that this version does not know")
    parts = tuple(ProvenPart(part.number("size"), part.hex("sha256", 64)) for part in proof.objects("parts"))
    if sum(part.size for part in parts) != size:
        raise holder.lie("has parts that do not add up to its size")
    return parts, proof.hex("root", 64)


def read_archive(own: Fields) -> ProvenObject | None:
    """What an OVA or a VMA is, packed or not, and no other format has. Raises `invalid_config`."""
    if ("archive" in own.all()) != (own.text("format") in ARCHIVES):
        raise own.lie("has an archive without being one, or is one without it")
    if "archive" not in own.all():
        return None
    archive = own.object("archive")
    file, size = archive.name("file"), archive.number("size")
    if not file.endswith(f".{ARCHIVES[own.text('format')]}"):
        raise archive.lie("has a name that is not of its format")
    return ProvenObject(file, size, *read_proof(archive, size))
