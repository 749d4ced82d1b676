# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this server really does, found out at one key: Azure itself, a version of Azure Stack, an emulator."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Dict, Optional, Sequence

from ..._errors import VmferryError
from ..probing import OTHER, SENT, accepts, refuses, require_gone
from .checksums import Checksum
from .container import Container, absent, unchanged
from .parts import block_id, new_mark

_ANOTHER_ETAG = '"0x1"'


@dataclass(frozen=True)
class Findings:
    checksum: Checksum  # the cheapest that the server compares, else the last
    verifies_checksums: bool
    conditional_put: bool
    conditional_replace: bool


def probe(container: Container, key: str, checksums: Sequence[Checksum]) -> Findings:
    """Writes at `key` and removes it again, whatever happens. Raises what writing there raises."""
    try:
        checksum, verified = _choose(container, key, checksums)
        _put(container, key)  # which also discards the blocks
        return Findings(
            checksum,
            verified,
            conditional_put=refuses(lambda: _put(container, key, absent())),
            conditional_replace=refuses(lambda: _put(container, key, unchanged(_ANOTHER_ETAG))),
        )
    finally:
        _remove(container, key)


def _put(container: Container, key: str, condition: Optional[Dict[str, Any]] = None) -> None:
    with container.doing("Writing", key):
        container.blob(key).upload_blob(SENT, length=len(SENT), overwrite=True, **(condition or {}))


def _remove(container: Container, key: str) -> None:
    try:
        with container.doing("Deleting", key):
            container.blob(key).delete_blob()
    except VmferryError as error:
        if error.kind != "not_found":
            raise
    require_gone(container.head(key) is None, f"{container.url}/{key}", "container")


def _choose(container: Container, key: str, checksums: Sequence[Checksum]) -> tuple[Checksum, bool]:
    """Tried on a block, since blocks carry the data."""
    for checksum in checksums:
        right, wrong = (partial(_stage, container, key, checksum, checksum.of(memoryview(of))) for of in (SENT, OTHER))
        if accepts(right) and not accepts(wrong):
            return checksum, True
    return checksums[-1], False


def _stage(container: Container, key: str, checksum: Checksum, digest: bytes) -> None:
    name = block_id(new_mark(container.session.now), 1, digest)
    with container.doing("Writing", key, checked=True):
        container.blob(key).stage_block(name, SENT, length=len(SENT), headers=checksum.headers(digest))
