# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this Cloud Storage really does, found out at one key: the service itself does all of it, an emulator may not."""

from __future__ import annotations

from dataclasses import dataclass

from ..probing import SENT, refuses, require_gone
from .bucket import Bucket


@dataclass(frozen=True)
class Findings:
    conditional_put: bool
    conditional_replace: bool


def probe(bucket: Bucket, key: str) -> Findings:
    """Writes at `key` and removes it again, whatever happens. Raises what writing there raises.

    Nothing is claimed of the bytes beforehand, so the checksum in the answer can only be the server's own.
    """
    next(bucket.items("Listing", key), None)  # without which nothing left behind could be found
    try:
        bucket.insert(bucket.doing("Writing", key), key, memoryview(SENT), claim=False)
        return Findings(
            conditional_put=refuses(lambda: _put(bucket, key, "0"), frozenset()),
            conditional_replace=refuses(lambda: _put(bucket, key, "1"), frozenset()),
        )
    finally:
        _remove(bucket, key)


def _put(bucket: Bucket, key: str, generation: str) -> None:
    condition = {"ifGenerationMatch": generation}
    bucket.insert(bucket.doing("Writing", key), key, memoryview(SENT), condition=condition)


def _remove(bucket: Bucket, key: str) -> None:
    found = bucket.look(key)
    if found is None:
        return
    bucket.remove(key, found.get("generation"))
    require_gone(bucket.look(key) is None, f"{bucket.url}/{key}", "bucket")
