# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The passphrase that encrypts exports, and opens them."""

from __future__ import annotations

from dataclasses import replace

from .._errors import VmferryError
from .._exports.encryption import Keyring
from .._exports.seals import Seals
from .argspec import ArgumentSpec, TaskArguments, invalid
from .sdk import require_encryption
from .secret_options import needed_secret, secret_options

SHORTEST = 8  # characters; how good a longer one is, nobody can tell by its length


def encryption_arguments() -> ArgumentSpec:
    return ArgumentSpec({"encryption": {"type": "dict", "options": secret_options("passphrase")}})


def with_passphrase(seals: Seals, arguments: TaskArguments, *, strict: bool = False) -> Seals:
    """`strict`: all that is read must be encrypted with it. Its signature comes with those that are made already."""
    if arguments["encryption"] is None:
        return seals
    require_encryption()
    passphrase = needed_secret(arguments.below("encryption"), "passphrase", within="encryption")
    if len(passphrase.decode()) < SHORTEST:
        raise invalid(
            f"encryption.passphrase has fewer than {SHORTEST} characters.",
            "Take a long random one, as of: openssl rand -base64 24",
        )
    if b"\0" in passphrase:
        raise VmferryError("invalid_config", "encryption.passphrase has a zero byte, which QEMU does not take.")
    keyring = Keyring(passphrase, strict)
    journal_key = seals.journal_key or keyring.journal_key
    return replace(seals, signers=(*seals.signers, keyring), journal_key=journal_key, keyring=keyring)
