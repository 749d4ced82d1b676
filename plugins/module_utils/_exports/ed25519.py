# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ed25519 (RFC 8032): a private key that signs manifests, and the public ones that a reader trusts."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, FrozenSet

from .._errors import VmferryError
from .signing import ED25519, Document, Signature, Untrusted, Verdict, signatures_of, signed_text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_RAW = re.compile(r"[0-9a-fA-F]{64}")
_HOW_TO_MAKE = "Make one with: openssl genpkey -algorithm ed25519 -out signing.pem"


@dataclass(frozen=True)
class TrustedKeys:
    """One valid signature by any of these is enough. Public keys in hex."""

    keys: FrozenSet[str]

    def check(self, document: Document, where: str) -> Verdict:
        found = [one for one in signatures_of(document, where) if one.algorithm == ED25519]
        ours = [one for one in found if one.public_key in self.keys]
        if not ours:
            raise Untrusted(
                f"{where} is signed by {_short(found)}, which is not trusted." if found else f"{where} is not signed.",
                "Add the public key of whoever signs these exports to trusted_keys, or use an export that is signed by "
                "one of them.",
            )
        text = signed_text(document)
        if not any(_is_valid(one, text) for one in ours):
            raise Untrusted(
                f"{where} was changed since it was signed by {_short(ours)}.",
                "Use another export, or another copy of this one, and find out who can write to the store.",
            )
        return "valid"


@dataclass(frozen=True)
class SigningKey:
    """The private key is in no repr."""

    public_key: str  # hex
    _key: Ed25519PrivateKey = field(repr=False, compare=False)

    @property
    def by(self) -> str:
        return "key"

    def sign(self, document: Document) -> Signature:
        signature = self._key.sign(signed_text(document))
        return Signature(self.by, ED25519, self.public_key, signature.hex())

    def journal_key(self, export_id: str) -> bytes:
        """A secret of whoever has the private key, for HMAC alone. Plays `JournalKey`."""
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        raw = self._key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        return hmac.digest(raw, b"vmferry.migrate journal " + export_id.encode(), "sha256")

    def trust(self) -> TrustedKeys:
        return TrustedKeys(frozenset({self.public_key}))


def read_signing_key(text: bytes, option: str) -> SigningKey:
    """PEM as openssl writes it (PKCS #8), or as ssh-keygen does. Raises `invalid_config`; never quotes the key."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    load: Any = serialization.load_pem_private_key
    if b"BEGIN OPENSSH PRIVATE KEY" in text:
        load = serialization.load_ssh_private_key
    try:
        key = load(text, None)
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        if b"ENCRYPTED" in text or "password" in str(error).lower():
            raise _invalid(
                f"{option} is a key that is locked by a passphrase.",
                "Have a command unlock it, as with key_command: [openssl, pkey, -in, signing.pem, -passin, ...].",
            ) from error
        raise _invalid(f"{option} is not a private key in PEM.", _HOW_TO_MAKE) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _invalid(f"{option} is not an Ed25519 key.", _HOW_TO_MAKE)
    return SigningKey(_raw(key.public_key()).hex(), key)


def signing_key_of(seed: bytes) -> SigningKey:
    """`seed`: 32 bytes that nobody else knows."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(seed)
    return SigningKey(_raw(key.public_key()).hex(), key)


def read_public_key(text: str, option: str) -> str:
    """Hex, of PEM, of a line as in `~/.ssh/id_ed25519.pub`, or of hex. Raises `invalid_config`."""
    text = text.strip()
    if _RAW.fullmatch(text):
        return text.lower()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    load: Any = serialization.load_ssh_public_key if text.startswith("ssh-") else serialization.load_pem_public_key
    hint = (
        "Give its PEM, its line of ssh-keygen, or its 64 hexadecimal digits; of a file, what lookup('file', …) reads."
    )
    try:
        key = load(text.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        what = "has a private key, which belongs to whoever signs alone" if "PRIVATE" in text else "has no public key"
        raise _invalid(f"{option} {what}.", hint) from error
    if not isinstance(key, Ed25519PublicKey):
        raise _invalid(f"{option} has a key that is not an Ed25519 key.", hint)
    return _raw(key).hex()


def _raw(key: Any) -> bytes:
    if hasattr(key, "public_bytes_raw"):  # all kinds of keys would be imported otherwise, for the names of two formats
        return bytes(key.public_bytes_raw())
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    raw: bytes = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return raw


def _is_valid(signature: Signature, text: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(signature.public_key)).verify(
            bytes.fromhex(signature.signature), text
        )
    except (InvalidSignature, ValueError):
        return False
    return True


def _short(signatures: list[Signature]) -> str:
    return " and ".join(sorted({f"{one.public_key[:16]}..." for one in signatures}))


def _invalid(message: str, hint: str) -> VmferryError:
    return VmferryError("invalid_config", message, hint, phase="validating")
