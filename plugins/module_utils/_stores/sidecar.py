# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a file cannot say of itself: an object's metadata, in a small object beside it, where the store keeps none."""

from __future__ import annotations

import json
from typing import Dict, Mapping, Optional, Tuple

from .._errors import VmferryError
from .base import Store

SUFFIX = ".meta.json"
VERSION = 1
LIMIT = 64 * 1024  # bytes of a sidecar that is read; S3 keeps 2 KiB of metadata, Azure 8


def sidecar_key(key: str) -> str:
    return key + SUFFIX


def is_sidecar(key: str) -> bool:
    return key.endswith(SUFFIX)


def object_key(key: str) -> str:
    """Of the object that a sidecar of this key is about."""
    return key[: -len(SUFFIX)]


def write_sidecar(store: Store, key: str, metadata: Mapping[str, str], etag: str) -> None:
    """`etag`: of the object, once it is complete: what is put there later has not this metadata."""
    told = {"version": VERSION, "etag": etag, "metadata": dict(sorted(metadata.items()))}
    data = json.dumps(told, ensure_ascii=False, indent=2).encode() + b"\n"
    if len(data) > LIMIT:
        raise VmferryError("invalid_config", f"The metadata of {store.object_url(key)} has more than {LIMIT} bytes.")
    store.put(sidecar_key(key), data)


def read_sidecar(store: Store, key: str, etag: Optional[str] = None) -> Dict[str, str]:
    """Empty where there is none, or where it is of another object than the one with this `etag`.

    Raises `invalid_config` for a file of that name that is none of ours.
    """
    data = store.read_whole(sidecar_key(key), LIMIT + 1)
    if data is None:
        return {}
    told = _parsed(data)
    if told is None:
        raise VmferryError(
            "invalid_config",
            f"{store.object_url(sidecar_key(key))} does not hold metadata.",
            f"Names that end in {SUFFIX} belong to the metadata of the file beside them: rename this one.",
        )
    of, metadata = told
    return metadata if etag in (None, of) else {}


def delete_sidecar(store: Store, key: str) -> None:
    """Before the object itself, so that no metadata is left without one."""
    store.delete(sidecar_key(key))


def _parsed(data: bytes) -> Optional[Tuple[str, Dict[str, str]]]:
    """The etag and the metadata; None for anything else."""
    try:
        told = json.loads(data) if len(data) <= LIMIT else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or told.get("version") != VERSION or not isinstance(told.get("etag"), str):
        return None
    metadata = told.get("metadata")
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        return None
    return told["etag"], metadata
