# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this HTTP server really does, found out at one key."""

from __future__ import annotations

from dataclasses import dataclass
from secrets import token_hex

from ..._errors import VmferryError
from ..probing import SENT, UNUSABLE, accepts, refuses, require_gone
from .client import Body
from .folder import DavFolder
from .headers import CHECKSUM, described

_WRONG = "0" * 64
_REFUSALS = UNUSABLE | {"conflict", "busy"}


@dataclass(frozen=True)
class Findings:
    verifies_checksums: bool
    conditional_put: bool
    conditional_replace: bool


def probe(folder: DavFolder, key: str) -> Findings:
    """Writes at `key` and beside it, and removes both again, whatever happens. Raises what writing there raises, and
    `unsupported` where the server cannot be a store at all.
    """
    beside = f"{key}.{token_hex(8)}.part"
    try:
        _put(folder, beside)
        folder.move(beside, key)
        _require_ranges(folder, key)
        _put(folder, beside)
        return Findings(
            conditional_put=_refuses_to_replace(folder, key, beside),
            conditional_replace=folder.locks and _honours_locks(folder, key, beside),
            verifies_checksums=_compares(folder, beside),
        )
    finally:
        folder.remove_file(beside)
        folder.remove_file(key)
        folder.tidy(key)
        require_gone(folder.head(key) is None, folder.url_of(key), "folder")


def _put(folder: DavFolder, key: str) -> None:
    view = memoryview(SENT)
    folder.put(key, Body(view, folder.client.alive), described(view, None))


def _require_ranges(folder: DavFolder, key: str) -> None:
    with folder.reading(key, {"Range": "bytes=1-3"}) as answer:
        found = answer.read(len(SENT)) if answer.status == 206 else b""
    if found != SENT[1:4]:
        raise VmferryError(
            "unsupported",
            f"The server gives no ranges of {folder.url_of(key)}, so nothing could be restored from it.",
            "Turn on byte ranges, and off what compresses or rewrites answers.",
        )


def _refuses_to_replace(folder: DavFolder, key: str, beside: str) -> bool:
    if refuses(lambda: folder.move(beside, key, overwrite=False), UNUSABLE | {"busy"}):
        return True
    _put(folder, beside)
    return False


def _honours_locks(folder: DavFolder, key: str, beside: str) -> bool:
    """Whether whoever has no key to the lock is kept out, and whoever has is let in."""
    try:
        with folder.locked(key) as lock:
            if accepts(lambda: folder.move(beside, key), frozenset({"busy"})):
                return False
            folder.move(beside, key, lock=lock)
    except VmferryError as error:
        if error.kind not in _REFUSALS:
            raise
        return False
    return True


def _compares(folder: DavFolder, key: str) -> bool:
    body = Body(memoryview(SENT), folder.client.alive)
    return not accepts(lambda: folder.put(key, body, {CHECKSUM: _WRONG}), _REFUSALS)
