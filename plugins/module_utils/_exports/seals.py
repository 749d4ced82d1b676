# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that the manifests of a task are signed with, and all that those it reads must pass."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Optional, Tuple

from .._errors import VmferryError
from .signing import OWN, SIGNATURES, Document, JournalKey, Signature, Signer, Trust, Untrusted, Verdict, signatures_of

if TYPE_CHECKING:
    from .encryption import Encryption, Keyring


@dataclass(frozen=True)
class Seals:
    """What manifests get where they are written (a signature of each signer), and must have where they are read (what
    each of `trusts` asks for)."""

    signers: Tuple[Signer, ...] = ()
    trusts: Tuple[Trust, ...] = ()
    journal_key: Optional[JournalKey] = field(default=None, repr=False)  # proves what an unfinished export left
    keyring: Optional[Keyring] = None  # that opens what is encrypted

    def check(self, document: Document, where: str) -> Verdict:
        verdict: Verdict = "unchecked" if signatures_of(document, where) else "none"
        for trust in self.trusts:
            verdict = trust.check(document, where)
        return verdict

    def seal(self, manifest: bytes) -> bytes:
        """The manifest with signatures, instead of those that it may have."""
        if not self.signers:
            return manifest
        document = json.loads(manifest)
        signed = [signer.sign(document) for signer in self.signers]
        document[OWN][SIGNATURES] = [asdict(one) for one in signed if one is not None]
        return json.dumps(document, indent=1).encode() + b"\n"

    def insist_on_own(
        self, encryption: Optional[Encryption] = None, what: str = "The manifest that this task would write"
    ) -> None:
        """Raises `invalid_config` where who writes a manifest with this `encryption` would not read it. `what` names
        it in the message."""
        if not self.trusts:
            return
        own = {} if encryption is None else {"encryption": encryption.as_dict()}
        try:
            self.check(json.loads(self.seal(json.dumps({OWN: own}).encode())), what)
        except Untrusted as error:
            raise VmferryError(
                "invalid_config",
                error.message,
                "Give the task signing, whose own key it trusts, or leave out trusted_keys.",
                phase="validating",
            ) from error

    def strict(self) -> Seals:
        """For reading what a signature is to be put on anew: it must have had one that is trusted. A signer trusts
        itself where nobody else is named; a keyring that is not `strict` then passes what is not encrypted."""
        return self if self.trusts else replace(self, trusts=tuple(signer.trust() for signer in self.signers))

    def insist_on_signing(self, signed_by: Tuple[Signature, ...], where: str) -> None:
        """Raises `invalid_config` where a manifest with these signatures would lose one by being written again."""
        lost = {one.by for one in signed_by} - {signer.by for signer in self.signers}
        if lost:
            raise VmferryError(
                "invalid_config",
                f"{where} is signed, and would lose its signature by {' and '.join(sorted(lost))}: nothing is merged "
                "into it.",
                "Give the task the key it is signed with, or use merge: false.",
            )


UNCHECKED = Seals()


@dataclass(frozen=True)
class IfSigned:
    """What has signatures must pass `signed`, and all else `unsigned`."""

    signed: Trust
    unsigned: Trust

    @property
    def keyring(self) -> Optional[Keyring]:
        return keyring_of(self.signed)

    def check(self, document: Document, where: str) -> Verdict:
        return (self.signed if signatures_of(document, where) else self.unsigned).check(document, where)


def keyring_of(trust: Trust) -> Optional[Keyring]:
    """By which what was read under this trust is opened, too."""
    found: Optional[Keyring] = getattr(trust, "keyring", None)
    return found
