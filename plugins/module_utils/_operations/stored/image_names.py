# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files are disk images by their names, and what a name says of the format."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Mapping

# One of the inspector's formats; empty where any may be in it.
_FORMATS: Mapping[str, str] = {
    ".avhdx": "vhdx",
    ".img": "",
    ".qcow": "",
    ".qcow2": "qcow2",
    ".qed": "qed",
    ".raw": "raw",
    ".vdi": "vdi",
    ".vhd": "vhd",
    ".vhdx": "vhdx",
    ".vmdk": "vmdk",
}


def names_image(url: str) -> bool:
    return PurePosixPath(url).suffix.lower() in _FORMATS


def format_by_name(name: str) -> str:
    return _FORMATS.get(PurePosixPath(name).suffix.lower(), "")
