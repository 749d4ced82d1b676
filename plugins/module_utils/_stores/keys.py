# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a key may be. One rule for every store, so that an export can be copied from any of them to any other."""

from __future__ import annotations

import re
from urllib.parse import unquote

from .._errors import VmferryError

MAX_KEY = 900  # bytes of UTF-8; S3 allows 1024 for prefix and key together
MAX_SEGMENT = 200  # bytes of UTF-8; a file name holds 255, and an unfinished file's name is longer than its key
PARTIAL = re.compile(r"\.[0-9a-f]{16}\.part$")  # ends the name of a file that is still being written
UPLOAD = re.compile(r"[0-9a-f]{16}")  # in that name
PIECES = ".pieces/"  # behind the key of an object, begins the names of pieces of it that are objects of their own
_PIECE = re.compile(rf"(.+){re.escape(PIECES)}\d{{5}}")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def check_key(key: str) -> str:
    """The key itself, or `invalid_config` when it could leave its root or could not be stored everywhere."""
    _check_text(key)
    if key.startswith("/"):
        raise _refused(key, "is absolute")
    for segment in key.split("/"):
        _check_segment(key, segment)
    if PARTIAL.search(key):
        raise _refused(key, "has the name of an unfinished file")
    return key


def check_prefix(prefix: str) -> str:
    """A key's beginning: empty, whole folders ending in `/`, or folders and the beginning of a name."""
    if not prefix:
        return prefix
    _check_text(prefix)
    if prefix.startswith("/"):
        raise _refused(prefix, "is absolute")
    *folders, name = prefix.split("/")
    for segment in folders:
        _check_segment(prefix, segment)
    if name:
        _check_segment(prefix, name)
    return prefix


def root_prefix(path: str) -> str:
    """Of a storage URL's path, what all keys of the store begin with on its server: empty, or it ends in a slash."""
    prefix = unquote(path).strip("/")
    return f"{check_key(prefix)}/" if prefix else ""


def owner_of(key: str) -> str:
    """Of a piece of an object that was on its way, the object's key; any other is its own."""
    found = _PIECE.fullmatch(key)
    return found[1] if found else key


def is_key(key: str) -> bool:
    """False for what others may have put into the same root and no key of ours can name."""
    try:
        check_key(key)
    except VmferryError:
        return False
    return True


def _check_text(key: str) -> None:
    if not key:
        raise _refused(key, "is empty")
    if "\\" in key or _CONTROL.search(key):
        raise _refused(key, "contains a backslash or a control character")
    if len(key.encode()) > MAX_KEY:
        raise _refused(key[:80] + "…", f"is longer than {MAX_KEY} bytes")


def _check_segment(key: str, segment: str) -> None:
    if segment in ("", ".", ".."):
        raise _refused(key, "has an empty, '.' or '..' segment")
    if len(segment.encode()) > MAX_SEGMENT:
        raise _refused(key[:80] + "…", f"has a segment longer than {MAX_SEGMENT} bytes")


def _refused(key: str, why: str) -> VmferryError:
    return VmferryError(
        "invalid_config",
        f"The storage key {key!a} {why}.",
        "Keys are '/'-separated names below the storage URL.",
    )
