# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Formats of exports: those of images, those that pack a whole VM for others to take, and the provider's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Mapping

from .._images.formats import FORMATS, format_named
from .._images.image_format import ImageFormat

PACKED: Mapping[str, str] = {
    "ova": "vmdk",
    "ova_gz": "vmdk",
    "ovf": "vmdk",
    "vma": "vma",
}  # and the format of the images in them
# In which all images are, in one file, and what its name ends in.
ARCHIVES: Mapping[str, str] = {"ova": "ova", "ova_gz": "ova.gz", "vma": "vma"}
NATIVE, NATIVE_FORMATS = "native", ("qcow2", "raw")  # each disk in the format that its provider has it in
EXPORT_FORMATS = (*FORMATS, *PACKED, NATIVE)


def image_format_of(export_format: str) -> ImageFormat:
    """Of an export's images; of those that are native, what they have in common. Raises `unsupported` for a format that
    is none.
    """
    if export_format == NATIVE:
        largest = format_named(NATIVE_FORMATS[0])
        return replace(largest, name=NATIVE, codec=None, compressions=("none",), layers=False, encrypts=False)
    return format_named(PACKED.get(export_format, export_format))


def format_of_disk(export_format: str, own: str) -> str:
    """Of an image of a disk whose provider has it as `own`."""
    return own if export_format == NATIVE and own in NATIVE_FORMATS else export_format
