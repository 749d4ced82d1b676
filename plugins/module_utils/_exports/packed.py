# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Formats of exports: those of images, and those that pack a whole VM as an appliance for others to take."""

from __future__ import annotations

from typing import Mapping

from .._images.formats import FORMATS, format_named
from .._images.image_format import ImageFormat

PACKED: Mapping[str, str] = {"ova": "vmdk", "ovf": "vmdk", "vma": "vma"}  # and the format of the images in them
ARCHIVES = ("ova", "vma")  # in which all images are, in one file
EXPORT_FORMATS = (*FORMATS, *PACKED)


def image_format_of(export_format: str) -> ImageFormat:
    """Of an export's images. Raises `unsupported` for a format that is none."""
    return format_named(PACKED.get(export_format, export_format))
