# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image that nobody vouches for, understood before any other program gets to see it.

Fails closed: what is not understood is an objection, also where QEMU would read it without a word.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Callable, Mapping

from . import qcow as inspect_qcow
from . import qcow2 as inspect_qcow2
from . import qed as inspect_qed
from . import raw_tar_gz as inspect_raw_tar_gz
from . import signatures as inspect_signatures
from . import vdi as inspect_vdi
from . import vhd as inspect_vhd
from . import vhdx as inspect_vhdx
from . import vma as inspect_vma
from . import vmdk as inspect_vmdk
from .reading import Examination, Hopeless, ReadAt
from .words import Description, Limits

_DESCRIBERS: Mapping[str, Callable[[Examination], Description]] = {
    "qcow2": inspect_qcow2.describe,
    "qcow": inspect_qcow.describe,
    "qed": inspect_qed.describe,
    "vdi": inspect_vdi.describe,
    "vmdk": inspect_vmdk.describe,
    "vmdk (text)": inspect_vmdk.describe_text,
    "vhd": inspect_vhd.describe,
    "vhdx": inspect_vhdx.describe,
    "raw_tar_gz": inspect_raw_tar_gz.describe,
    "vma": inspect_vma.describe,
}
FORMATS = ("qcow2", "qcow", "qed", "vdi", "vmdk", "vhd", "vhdx", "raw_tar_gz", "vma", "raw")
_USUAL = Limits()


def inspect_image(
    read_at: ReadAt, size: int, *, expected: str = "", limits: Limits = _USUAL, header_only: bool = False
) -> Description:
    """`size`: of the file in bytes; `read_at` fills a buffer from a place in it. `expected`: one of FORMATS, if
    somebody said so.

    `header_only` leaves out the tables, and with them `overlap`, `expansion` and most of `truncated`.
    Raises what `read_at` raises; whatever the bytes are is told in the description's objections.
    """
    examination = Examination(read_at, size, limits, header_only=header_only)
    return _closed(examination, lambda: _describe(examination, expected))


def inspect_flat_extent(read_at: ReadAt, size: int) -> Description:
    """As `inspect_image`, of a file that is a plain run of a disk by the descriptor beside it.

    It begins anywhere in a guest's disk, so that a packed file of the guest may well lie there; an image, hardly.
    """
    examination = Examination(read_at, size, _USUAL)
    return _closed(examination, lambda: _describe_run(examination))


def inspect_sparse_extent(read_at: ReadAt, size: int, *, limits: Limits = _USUAL) -> Description:
    """As `inspect_image`, of a file that is a sparse part of a VMDK by the descriptor beside it."""
    examination = Examination(read_at, size, limits)
    return _closed(examination, lambda: inspect_vmdk.describe_extent(examination))


def _closed(examination: Examination, describe: Callable[[], Description]) -> Description:
    try:
        found = describe()
    except Hopeless:
        found = Description("")
    except (struct.error, ValueError, ArithmeticError, LookupError) as error:  # a case that was not thought of
        examination.object("damaged", f"cannot be read ({type(error).__name__})")
        found = Description("")
    return replace(found, objections=tuple(examination.objections))


def _describe_run(examination: Examination) -> Description:
    for mark in inspect_signatures.marks(examination):
        if not mark.startswith("archive: ") and mark != "raw_tar_gz":
            examination.refuse("disguised", f"is said to be a run of a disk, and bears the marks of {mark}")
    return Description("raw", "", examination.size)


def _describe(examination: Examination, expected: str) -> Description:
    marks = inspect_signatures.marks(examination)
    content = inspect_signatures.content(examination)
    mark = marks[0] if marks else "raw"
    if expected == "raw" and marks:
        examination.object("disguised", f"is said to be raw, and bears the marks of {mark}")
        mark = "raw"
    elif len(marks) > 1 or (marks and content and mark != "vhd"):
        examination.refuse("polyglot", f"is {' and '.join([*marks, *content])} at once")
    if mark.startswith("archive: "):
        examination.refuse("archive", f"is an archive ({mark[9:]})")
    if mark != "raw" and mark not in _DESCRIBERS:
        examination.refuse("unknown_format", f"has the format {mark}")
    if expected and mark.partition(" ")[0] != expected:
        examination.refuse("other_format", f"is {mark}, and said to be {expected}")
    if mark == "raw":
        return Description("raw", ", ".join(content), examination.disk_size(examination.size))
    return _DESCRIBERS[mark](examination)
