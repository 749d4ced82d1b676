# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The SHA-256 of a stored object as it was when it was sent, which tells without reading it whether it is the same."""

from __future__ import annotations

import re
from typing import Any, Iterable, Iterator, Mapping

from ..._blocks import ObjectInfo
from ..._errors import VmferryError
from ..._exports.naming import iso_time
from ..._stores.base import Store
from ..._stores.sidecar import delete_sidecar, is_sidecar, object_key, read_sidecar, write_sidecar

OURS = "vmferry-"  # begins the names of metadata that no user sees
SHA256 = f"{OURS}sha256"  # among an object's metadata
SOURCE = f"{OURS}source-etag"  # of the object that it is a copy of, where nobody knew the SHA-256 of that
_HEX = re.compile(r"[0-9a-f]{64}")


def known_details(store: Store, info: ObjectInfo, is_path: bool) -> tuple[str, Mapping[str, str]]:
    """SHA-256 in hex, '' where nobody noted it, and the metadata but for it. `is_path`: the store keeps files."""
    sha256, metadata = info.metadata.get(SHA256, ""), info.metadata
    if is_path and not is_sidecar(info.key):
        metadata = _noted(store, info.key)
        # A file that was replaced by other means has the checksum no longer; what was said of it may still be meant.
        sha256 = metadata.get(SHA256, "") and read_sidecar(store, info.key, info.etag).get(SHA256, "")
    own = {name: value for name, value in metadata.items() if not name.startswith(OURS)}
    return (sha256 if _HEX.fullmatch(sha256) else ""), own


def note_metadata(store: Store, info: ObjectInfo, sha256: str, metadata: Mapping[str, str]) -> None:
    """Of a file that is complete. Raises `invalid_config` where its sidecar's name is another file's."""
    if metadata:
        read_sidecar(store, info.key)
        write_sidecar(store, info.key, {**metadata, SHA256: sha256}, info.etag)
    else:
        forget_metadata(store, info.key)


def forget_metadata(store: Store, key: str) -> None:
    """Of a file that was replaced or removed. What is no sidecar stays."""
    if has_metadata(store, key):
        delete_sidecar(store, key)


def has_metadata(store: Store, key: str) -> bool:
    """Beside the file, whether that is there or not."""
    return bool(_noted(store, key))


def without_sidecars(store: Store, infos: Iterable[ObjectInfo]) -> Iterator[ObjectInfo]:
    """Of files listed in order, those that were put there; what is noted beside one is told with it."""
    seen: set[str] = set()
    for info in infos:
        if not is_sidecar(info.key):
            seen.add(info.key)
        elif object_key(info.key) in seen and has_metadata(store, object_key(info.key)):
            continue
        yield info


def _noted(store: Store, key: str) -> Mapping[str, str]:
    try:
        return read_sidecar(store, key)
    except VmferryError as error:
        if error.kind != "invalid_config":  # it is another file, or its name would be too long
            raise
        return {}


def described(store: Store, info: ObjectInfo, is_path: bool) -> dict[str, Any]:
    """As modules return it. Of an object out of a list, a store may not tell all."""
    sha256, metadata = known_details(store, info, is_path)
    return {
        "key": info.key,
        "url": store.object_url(info.key),
        "size": info.size,
        "checksum": sha256,
        "etag": info.etag,
        "modified": iso_time(info.modified) if info.modified else "",
        "type": info.content_type,
        "metadata": dict(metadata),
        "locked": info.locked,
    }
