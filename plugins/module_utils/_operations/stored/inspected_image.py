# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image that others packed, with a description of the VM beside it, is read as."""

from __future__ import annotations

from ..._appliances.packages import Member
from ..._errors import VmferryError
from ..._images.formats import FORMATS
from ..._images.image_format import ImageFormat, too_large
from ..._images.inspect.image import inspect_image

_INSPECTED_AS = {"vmdk_sparse": "vmdk", "vhd_dynamic": "vhd"}
_READ_AS = {"vmdk": "vmdk", "qcow2": "qcow2", "vhd": "vhd", "vhdx": "vhdx", "raw": "raw"}


def inspected_image(member: Member, expected: str, where: str) -> tuple[ImageFormat, int]:
    """What it is read as, and the bytes of its disk. `expected`: as the table of formats has it; empty if nobody said
    so. Raises `invalid_config` or `unsupported`."""
    seen = inspect_image(member.read_at, member.size, expected=_INSPECTED_AS.get(expected, expected))
    seen.approve(where)
    if seen.format not in _READ_AS:
        raise VmferryError(
            "unsupported",
            f"{where} is an image of the format {seen.format}, which appliances are not read in.",
            f"Convert it, with `qemu-img convert`, to one of {', '.join(sorted(_READ_AS))}.",
        )
    format = FORMATS[_READ_AS[seen.format]]
    if seen.size > format.largest_disk:
        raise too_large(format, seen.size)
    return format, seen.size
