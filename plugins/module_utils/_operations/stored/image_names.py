# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files are disk images by their names, and what a name says of the format."""

from __future__ import annotations

from typing import Mapping, Optional

# One of the inspector's formats; empty where any may be in it.
_FORMATS: Mapping[str, str] = {
    ".avhdx": "vhdx",
    ".img": "",
    ".qcow": "",
    ".qcow2": "qcow2",
    ".qed": "qed",
    ".raw": "raw",
    ".tar.gz": "raw_tar_gz",
    ".tgz": "raw_tar_gz",
    ".vdi": "vdi",
    ".vhd": "vhd",
    ".vhdx": "vhdx",
    ".vmdk": "vmdk",
    ".vpc": "vhd",
}


def names_image(url: str) -> bool:
    return _said_by(url) is not None


def without_ending(name: str) -> str:
    """As people call what is in the file."""
    ending = next((one for one in _FORMATS if name.lower().endswith(one)), "")
    return name[: len(name) - len(ending)]


def format_by_name(name: str) -> str:
    return _said_by(name) or ""


def _said_by(name: str) -> Optional[str]:
    return next((said for ending, said in _FORMATS.items() if name.lower().endswith(ending)), None)
