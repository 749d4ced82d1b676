# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What speaks against an image elsewhere, and not where our own readers read it."""

from __future__ import annotations

from typing import FrozenSet

from ..._images.inspect.words import Description, Objection


def answered(found: Description) -> FrozenSet[Objection]:
    """Objections to which whoever reads such an image here has an answer. Of one that could not be understood to its
    end, the last is what ended it.
    """
    if not found.format:
        return frozenset(name for name, _seen in found.objections[:-1])
    if found.format == "vmdk" and found.extents:
        return frozenset({"extents"})
    if found.format == "vhdx" and found.subformat == "differencing":
        return frozenset({"backing_file"})
    return frozenset({"internal_snapshots"} if found.format == "qcow2" else ())
