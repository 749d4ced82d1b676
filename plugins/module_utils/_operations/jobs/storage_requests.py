# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user asks for of objects in stores, parsed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Mapping

from .requests import StoreSpec, TransferOptions

Overwrite = Literal["never", "different", "always"]


@dataclass(frozen=True)
class ObjectSpec:
    store: StoreSpec
    key: str


@dataclass(frozen=True)
class LookRequest:
    store: StoreSpec
    key: str = ""  # of one object
    prefix: str = ""  # of a list
    limit: int = 1000  # objects


@dataclass(frozen=True)
class RemoveRequest:
    target: ObjectSpec
    if_match: str = ""  # an etag


@dataclass(frozen=True)
class DownloadRequest:
    source: ObjectSpec
    dest: str  # a path of this host; a folder, where it is one or ends in `/`
    checksum: str = ""  # SHA-256 that the object must have, in hex
    overwrite: Overwrite = "different"
    access: Mapping[str, Any] = field(default_factory=dict)  # mode, owner and group of the file
    resume_window: float | None = None  # seconds; None: a day
    transfer: TransferOptions = field(default_factory=TransferOptions)


@dataclass(frozen=True)
class UploadRequest:
    store: StoreSpec
    src: tuple[str, ...]  # files, folders and globs of this host
    key: str = "{file}"  # a template
    vm: str = ""  # for the template
    checksum: str = ""  # SHA-256 that the only file must have, in hex
    metadata: Mapping[str, str] | None = None  # None: what an object has stays
    overwrite: Overwrite = "different"
    keep_source: bool = True
    read_back: bool = True  # where the store does not vouch for what it took
    resume_window: float | None = None  # seconds; None: a day, or none where going on costs more than it saves
    transfer: TransferOptions = field(default_factory=TransferOptions)


@dataclass(frozen=True)
class CopyRequest:
    source: StoreSpec
    destination: StoreSpec
    key: str = ""  # of one object
    prefix: str = ""  # of several, which keep their keys
    new_key: str = ""  # of the one object; empty: as it was
    checksum: str = ""  # SHA-256 that the one object must have, in hex
    overwrite: Overwrite = "different"
    relay: bool = False  # through this host, also where a server could copy by itself
    read_back: bool = True  # where the store does not vouch for what it took
    resume_window: float | None = None  # seconds; None: a day, or none where going on costs more than it saves
    transfer: TransferOptions = field(default_factory=TransferOptions)
