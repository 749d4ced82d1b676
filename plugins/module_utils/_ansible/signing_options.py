# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose signature exports get, and whose they must have."""

from __future__ import annotations

from dataclasses import replace

from .._exports.ed25519 import TrustedKeys, read_public_key, read_signing_key
from .._exports.seals import Seals
from .argspec import ArgumentSpec, TaskArguments, invalid
from .sdk import require_cryptography
from .secret_options import needed_secret, secret_options


def signing_arguments() -> ArgumentSpec:
    """Of modules that write manifests."""
    return ArgumentSpec({"signing": {"type": "dict", "options": secret_options("key")}}).merge(trust_arguments())


def trust_arguments() -> ArgumentSpec:
    """Of modules that only read them."""
    return ArgumentSpec({"trusted_keys": {"type": "list", "elements": "str", "no_log": False}})


def seals(arguments: TaskArguments) -> Seals:
    """Whoever signs trusts the own key, too, besides those that are named; and so what it reads must be signed."""
    trusted = _trusted_keys(arguments)
    if arguments["signing"] is None:
        return trust(arguments)
    require_cryptography()
    text = needed_secret(arguments.below("signing"), "key", "all", within="signing")
    signer = read_signing_key(text, "signing.key")
    trusts = (TrustedKeys((trusted or frozenset()) | {signer.public_key}),)
    return Seals((signer,), trusts, signer.journal_key)


def seals_of_cleanup(arguments: TaskArguments) -> Seals:
    """What is deleted need not be signed, unless that is asked for; what is merged must be, see `Seals.strict`."""
    found = seals(arguments)
    return found if arguments["trusted_keys"] is not None else replace(found, trusts=())


def trust(arguments: TaskArguments) -> Seals:
    trusted = _trusted_keys(arguments)
    return Seals() if trusted is None else Seals(trusts=(TrustedKeys(trusted),))


def _trusted_keys(arguments: TaskArguments) -> frozenset[str] | None:
    given = arguments["trusted_keys"]
    if given is None:
        return None
    if not all(given) or not given:
        raise invalid("trusted_keys is empty, or has an empty key.", "Leave it out to trust whatever is in the store.")
    require_cryptography()
    return frozenset(read_public_key(key, "trusted_keys") for key in given)
