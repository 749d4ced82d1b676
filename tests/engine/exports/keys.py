# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys that sign, always the same ones, and what a task has that signs or trusts."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ansible_collections.vmferry.migrate.plugins.module_utils._exports.ed25519 import (
    SigningKey,
    TrustedKeys,
    read_signing_key,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.seals import Seals


def pem(number: int) -> bytes:
    key = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def key(number: int) -> SigningKey:
    return read_signing_key(pem(number), "signing.key")


def trusting(*numbers: int) -> Seals:
    return Seals(trusts=(TrustedKeys(frozenset(key(one).public_key for one in numbers)),))


def signing(number: int, *trusted: int) -> Seals:
    """As a task that signs with a key trusts it, and others besides."""
    return Seals((key(number),), trusting(number, *trusted).trusts, key(number).journal_key)
