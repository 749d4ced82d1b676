# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an export takes in a store."""

from __future__ import annotations

from ..._exports.manifest import Manifest


def stored_bytes(made: Manifest) -> int:
    """What an export takes in a store, as its manifest tells it; without the manifest itself."""
    images = sum(one.size for _disk, one in made.objects)
    return images + sum(file.size for file in (*(disk.digests for disk in made.disks), *made.files))
