# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How what others made is refused: `unsupported` where it is sound and we cannot, else `invalid_config`."""

from __future__ import annotations

from .._errors import VmferryError

_AGAIN = "Get it again from whoever made it. What is refused here was neither unpacked nor written anywhere."
MAX_QUOTED = 80  # characters of what others wrote, in a message


def refused(where: str, why: str, hint: str = _AGAIN) -> VmferryError:
    """`why` goes on after `where`, without a full stop."""
    return VmferryError("invalid_config", f"{where} {why}.", hint)


def not_supported(where: str, why: str, hint: str = "") -> VmferryError:
    return VmferryError("unsupported", f"{where} {why}.", hint)


def damaged(where: str, why: str) -> VmferryError:
    return VmferryError("checksum_mismatch", f"{where} {why}.", _AGAIN)


def quoted(text: str) -> str:
    """Of a hostile name, without line ends and control characters."""
    return repr(text if len(text) <= MAX_QUOTED else text[: MAX_QUOTED - 1] + "…")


def printable(text: str) -> str:
    """What others wrote, for descriptions of machines and screens: one line, without control characters."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else " " if one.isspace() else "\N{REPLACEMENT CHARACTER}" for one in text)


def ends_early(where: str, name: str) -> VmferryError:
    return refused(where, f"has a file {quoted(name)} that ends before what it says it holds")
