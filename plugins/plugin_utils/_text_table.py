# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables of fixed width for terminals and logs."""

from __future__ import annotations

from collections.abc import Sequence

GAP = "  "
NOTHING = "-"  # in a cell


def text_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """One line for each row, columns as wide as they need. The last column is not padded.

    Titles in capitals; a column that starts with `>` is aligned to the right, as figures are.
    """
    names = [title.removeprefix(">") for title in titles]
    widths = [max(len(line[at]) for line in (names, *rows)) for at in range(len(names) - 1)]
    return [_line(line, titles, widths) for line in (names, *rows)]


def _line(cells: Sequence[str], titles: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        cell.rjust(width) if title.startswith(">") else cell.ljust(width)
        for cell, title, width in zip(cells, titles, widths, strict=False)
    ]
    return GAP.join([*padded, cells[-1]]).rstrip()
