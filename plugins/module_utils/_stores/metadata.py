# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What users and uploads note about an object, as every store can keep it: names all of them take, ASCII values."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Dict, Mapping
from urllib.parse import quote, unquote

from .._blocks import ObjectInfo
from .._errors import VmferryError

UPLOAD_TOKEN = "vmferry-upload"  # metadata that tells which upload an object came from
_NAME = re.compile(r"[a-z0-9-]+")
_SAFE = " !#$&'()*+,/:;=?@[]{}|~^<>\""


def checked_metadata(metadata: Mapping[str, str] | None) -> Dict[str, str]:
    """With names that every store takes; the values are kept as they are."""
    for name in metadata or {}:
        if not _NAME.fullmatch(name):
            raise VmferryError("invalid_config", f"The metadata name {name!a} is not made of a-z, 0-9 and '-'.")
    return dict(metadata or {})


def percent_encoded(metadata: Mapping[str, str] | None, safe: str = _SAFE) -> Dict[str, str]:
    """As headers carry it: names that are lowered on the way, values without what is not ASCII."""
    return {name: quote(value, safe=safe) for name, value in checked_metadata(metadata).items()}


def percent_decoded(metadata: Mapping[str, str]) -> Dict[str, str]:
    return {name.lower(): unquote(value) for name, value in metadata.items()}


def users_metadata(metadata: Mapping[str, str]) -> Dict[str, str]:
    """Without what an upload noted for itself."""
    return {name: value for name, value in metadata.items() if name != UPLOAD_TOKEN}


def made_by(mark: str, info: ObjectInfo | None) -> ObjectInfo | None:
    """What a user sees of it; None where it is of another upload."""
    return without_token(info) if info is not None and info.metadata.get(UPLOAD_TOKEN) == mark else None


def without_token(info: ObjectInfo) -> ObjectInfo:
    return replace(info, metadata=users_metadata(info.metadata))
