# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signatures in a manifest: which text they are over, who puts them there, and whom a reader trusts.

`x_vmferry.signatures` of a manifest has an entry for each `Signer`. What is signed is the document without these
entries, and without what depends on the place it lies in (`disks[].local_path`, which a copy changes) and what a later
look fills in (`disks[].checksum`): so a copy needs no key, and a verification none.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Callable, Literal, Mapping, Optional, Protocol, Tuple

from .._errors import VmferryError
from .fields import Fields

OWN, SIGNATURES = "x_vmferry", "signatures"
ED25519 = "ed25519"
_UNSIGNED_OF_A_DISK = frozenset({"local_path", "checksum"})
_MOST_SIGNATURES = 16

Document = Mapping[str, Any]  # a manifest, as JSON has it
JournalKey = Callable[[str], bytes]  # the secret of an export, by its id
# `unchecked`: it is signed, and nobody said whom to trust.
Verdict = Literal["none", "unchecked", "valid", "invalid"]


class Untrusted(VmferryError):
    """A manifest without the signature that it must have."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__("checksum_mismatch", message, hint)


@dataclass(frozen=True)
class Signature:
    """`by` says what the key is: a `key` of its own, or one that is made of a `passphrase`. The last two in hex."""

    by: str
    algorithm: str
    public_key: str
    signature: str


class Trust(Protocol):
    def check(self, document: Document, where: str) -> Verdict:
        """Raises `Untrusted`, whose message names the manifest by its URL `where`."""


class Signer(Protocol):
    @property
    def by(self) -> str: ...

    def sign(self, document: Document) -> Optional[Signature]:
        """Of `signed_text(document)`; None where it has nothing to say to it."""

    def trust(self) -> Trust:
        """What this signer's own manifests pass."""


@dataclass(frozen=True)
class Lenient:
    """For telling of manifests, not for acting on them."""

    trust: Trust

    def check(self, document: Document, where: str) -> Verdict:
        try:
            return self.trust.check(document, where)
        except Untrusted:
            return "invalid" if signatures_of(document, where) else "none"


def signed_text(document: Document) -> bytes:
    """JSON in ASCII, keys sorted, no white space: what Python's json.dumps writes with sort_keys=True and
    separators=(",", ":"), and openssl and others can verify."""
    own, disks = document.get(OWN), document.get("disks")
    signed = dict(document)
    if isinstance(own, dict):
        signed[OWN] = {name: value for name, value in own.items() if name != SIGNATURES}
    if isinstance(disks, list):
        signed["disks"] = [_signed_of(disk) for disk in disks]
    return json.dumps(signed, sort_keys=True, separators=(",", ":")).encode()


def _signed_of(disk: Any) -> Any:
    if not isinstance(disk, dict):
        return disk
    return {name: value for name, value in disk.items() if name not in _UNSIGNED_OF_A_DISK}


def signatures_of(document: Document, where: str) -> Tuple[Signature, ...]:
    """Raises `invalid_config` for what has another shape."""
    own = Fields(document, where).object(OWN)
    found = tuple(
        Signature(one.text("by"), one.text("algorithm"), one.hex("public_key", 64), one.hex("signature", 128))
        for one in own.objects(SIGNATURES)
    )
    if len(found) > _MOST_SIGNATURES:
        raise own.lie("has more signatures than anybody needs")
    return found
