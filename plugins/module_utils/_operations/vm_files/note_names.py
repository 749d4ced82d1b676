# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the notes are called that imports of files write beside them: by the VM that is to be there."""

from __future__ import annotations

NOTES = "vmferry-import-"  # and the VM's name; not hidden, or some servers would not list it
_END = ".json"


def note_key(name: str) -> str:
    return f"{NOTES}{name}{_END}"


def noted_name(key: str) -> str:
    """Of the VM that a note is about; '' where it is none."""
    return key[len(NOTES) : -len(_END)] if key.startswith(NOTES) and key.endswith(_END) and "/" not in key else ""
