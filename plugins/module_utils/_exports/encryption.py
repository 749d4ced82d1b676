# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How an encrypted export says how its keys are made of a passphrase, and the keys themselves.

A VM's exports have one secret: scrypt (RFC 7914) of the passphrase and of a salt that their manifests name. Out of it,
by HKDF (RFC 5869), come the key of each image, the key of each disk's digests in a chain, and the key that signs the
manifests. So no key is stored anywhere, and whoever has the passphrase can tell what others have changed.
"""

from __future__ import annotations

import hmac
import re
import secrets
import struct
from dataclasses import asdict, dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Dict, Optional, Tuple

from .._errors import VmferryError
from .._transfer.digest_file import KEYED
from .._transfer.digests import LeafHash
from .fields import Fields
from .signing import OWN, Document, Signature, Untrusted, Verdict, signatures_of

if TYPE_CHECKING:
    from .ed25519 import SigningKey

FORMAT, KDF = "luks", "scrypt"
IMAGE_KEY_SIZE = 64  # bytes
NONCE_DIGITS = 32
_COST = (1 << 15, 8, 3)  # n, r, p: OWASP's Password Storage Cheat Sheet, with 32 MiB
_NUMBER = struct.Struct(">Q")


@dataclass(frozen=True)
class Encryption:
    """What a manifest says. `salt` and `public_key`, of the passphrase's signatures, in hex."""

    salt: str
    public_key: str

    def as_dict(self) -> Dict[str, object]:
        n, r, p = _COST
        return {"format": FORMAT, "kdf": KDF, "n": n, "r": r, "p": p, "digests": KEYED, **asdict(self)}


def read_encryption(own: Fields) -> Optional[Encryption]:
    """None where there is none. Raises `invalid_config` for what is never written: whoever writes a manifest would have
    the memory and the time of this host otherwise, before any signature is looked at."""
    if own.all().get("encryption") is None:
        return None
    found = own.object("encryption")
    if (found.text("format"), found.text("kdf"), found.text("digests")) != (FORMAT, KDF, KEYED):
        raise found.lie("is encrypted in a way that this version does not know")
    if (found.number("n"), found.number("r"), found.number("p")) != _COST:
        raise found.lie("asks for other work to make its keys than is ever written")
    return Encryption(found.hex("salt", 32), found.hex("public_key", 64))


@dataclass(frozen=True)
class DiskKeys:
    """Of one disk's image in one export, and of its digests. In no message and no repr."""

    nonce: str
    image: bytes = field(repr=False)
    passphrase: bytes = field(repr=False)
    leaf_hash: LeafHash = field(repr=False, compare=False)


class ChainKeys:
    """Of a full export and of what stands on it. In no message and no repr."""

    def __init__(self, passphrase: bytes, secret: bytes, encryption: Encryption, chain_id: str) -> None:
        self.passphrase, self._secret, self.encryption, self._chain_id = passphrase, secret, encryption, chain_id

    def __repr__(self) -> str:
        return "ChainKeys()"

    def of_disk(self, export_id: str, disk_id: str, nonce: str) -> DiskKeys:
        """`nonce`: another one each time that an image of this export and disk is written from its beginning."""
        image = self._derived(f"image {export_id} {disk_id} {nonce}", IMAGE_KEY_SIZE)
        return DiskKeys(nonce, image, self.passphrase, self._leaf_hash(disk_id))

    def _leaf_hash(self, disk_id: str) -> LeafHash:
        """Nobody can tell by it what a leaf holds, nor whether it is like another one, or like the same one in another
        chain. Within a chain it is the same for the same bytes, since increments are found by it."""
        keyed = hmac.new(self._derived(f"digests {self._chain_id} {disk_id}", 32), digestmod="sha256")

        def of_leaf(number: int, data: memoryview) -> bytes:
            found = keyed.copy()
            found.update(_NUMBER.pack(number))
            found.update(data)
            return found.digest()

        return of_leaf

    def _derived(self, label: str, size: int) -> bytes:
        return _expanded(self._secret, label, size)


def new_nonce() -> str:
    return secrets.token_hex(NONCE_DIGITS // 2)


def is_nonce(text: str) -> bool:
    return re.fullmatch(f"[0-9a-f]{{{NONCE_DIGITS}}}", text) is not None


def _stretched(passphrase: bytes, salt: bytes) -> bytes:
    n, r, p = _COST
    memory = 128 * r * (n + p + 2) + (1 << 20)
    try:
        from hashlib import scrypt

        return scrypt(passphrase, salt=salt, n=n, r=r, p=p, maxmem=memory, dklen=32)
    except (ImportError, ValueError) as error:
        raise VmferryError(
            "unsupported",
            f"This host's OpenSSL has no scrypt, or may not use it: {error}.",
            "Encrypted exports need it. In FIPS mode, run the module on another host.",
        ) from error


def _expanded(secret: bytes, label: str, size: int) -> bytes:
    """HKDF's second step, with SHA-256: the secret is as good as random already."""
    info, found, block = b"vmferry.migrate " + label.encode(), b"", b""
    while len(found) < size:
        block = hmac.digest(secret, block + info + bytes([len(found) // 32 + 1]), "sha256")
        found += block
    return found[:size]


@dataclass(frozen=True)
class Keyring:
    """A passphrase, and the keys of the chains it opens. Plays `Signer`, and the `Trust` of it.

    `strict`: what is read must be encrypted, and with this passphrase; otherwise what is not has no keys.
    """

    passphrase: bytes = field(repr=False)
    strict: bool = True
    _made: Dict[str, Tuple[bytes, SigningKey]] = field(default_factory=dict, repr=False, compare=False)  # by salt
    _salts: Dict[str, str] = field(default_factory=dict, repr=False, compare=False)  # of what was opened, by machine
    _journals: Dict[str, bytes] = field(default_factory=dict, repr=False, compare=False)  # keys, by export
    _making: Lock = field(default_factory=Lock, repr=False, compare=False)
    _proving: Lock = field(
        default_factory=Lock, repr=False, compare=False
    )  # another one: both keys may be made at once

    @property
    def by(self) -> str:
        return "passphrase"

    def journal_key(self, export_id: str) -> bytes:
        """For HMAC alone. The export's id is its salt, so that a guess at the passphrase is one at this journal alone.
        Plays `JournalKey`."""
        with self._proving:
            found = self._journals.get(export_id)
            if found is None:
                secret = _stretched(self.passphrase, b"journal " + export_id.encode())
                found = self._journals[export_id] = _expanded(secret, "journals", 32)
            return found

    def new_chain(self, machine_id: str, chain_id: str) -> ChainKeys:
        """With the salt of an export of this machine that was opened before, if there is one: whoever reads many of
        them has the work of one then. No two images share a key all the same, and no two chains one of digests."""
        salt = self._salts.get(machine_id) or secrets.token_hex(16)
        secret, signer = self._keys_of(salt)
        return ChainKeys(self.passphrase, secret, Encryption(salt, signer.public_key), chain_id)

    def keys(self, encryption: Encryption, chain_id: str) -> Optional[ChainKeys]:
        """None where the passphrase is another."""
        secret, signer = self._keys_of(encryption.salt)
        if signer.public_key != encryption.public_key:
            return None
        return ChainKeys(self.passphrase, secret, encryption, chain_id)

    def opens(self, encryption: Encryption) -> bool:
        return self._keys_of(encryption.salt)[1].public_key == encryption.public_key

    def sign(self, document: Document) -> Optional[Signature]:
        """Of an encrypted export alone."""
        encryption = self._encryption_of(document, "The manifest")
        if encryption is None:
            return None
        if not self.opens(encryption):
            raise VmferryError("internal", "A manifest is to be signed with another passphrase than its own.")
        signer = self._keys_of(encryption.salt)[1]
        return Signature(self.by, *(getattr(signer.sign(document), name) for name in _SIGNED))

    def trust(self) -> Keyring:
        return self

    def check(self, document: Document, where: str) -> Verdict:
        if self.opened(document, where) is not None:
            return "valid"
        return "unchecked" if signatures_of(document, where) else "none"

    def opened(self, document: Document, where: str) -> Optional[ChainKeys]:
        """The keys of what a manifest is of, which must be signed by this passphrase then: raises `Untrusted`.

        None where it is not encrypted, or with another passphrase; `strict`, that raises, too.
        """
        from .ed25519 import TrustedKeys

        encryption = self._encryption_of(document, where)
        if encryption is None or not self.opens(encryption):
            if self.strict:
                raise self._refused(encryption, where)
            return None
        TrustedKeys(frozenset({encryption.public_key})).check(document, where)
        own = Fields(document, where).object(OWN)
        self._salts.setdefault(own.object("machine").text("id"), encryption.salt)
        return self.keys(encryption, own.hex("chain_id", 8))

    def _refused(self, encryption: Optional[Encryption], where: str) -> VmferryError:
        if encryption is None:
            return Untrusted(
                f"{where} is of an export that is not encrypted, and a passphrase was given.",
                "Leave out encryption for it, if it was never encrypted. If it was, somebody replaced it.",
            )
        return VmferryError(
            "unauthenticated",
            f"The passphrase does not open {where}.",
            "Use the passphrase that the export was made with. Where it is that one, somebody changed the manifest.",
        )

    def _encryption_of(self, document: Document, where: str) -> Optional[Encryption]:
        return read_encryption(Fields(document, where).object(OWN))

    def _keys_of(self, salt: str) -> Tuple[bytes, SigningKey]:
        """The secret, and what signs."""
        from .ed25519 import signing_key_of

        with self._making:
            found = self._made.get(salt)
            if found is None:
                secret = _stretched(self.passphrase, bytes.fromhex(salt))
                found = self._made[salt] = (secret, signing_key_of(_expanded(secret, "manifests", 32)))
            return found


_SIGNED = ("algorithm", "public_key", "signature")
