# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of all transfers of a run, for people."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from .transfer_report import Outcome, Transfer

TITLES = ("HOST", "VM", "KIND", "OUTCOME", "MODE", "READ", "STORED", "TIME", "RATE", "WHERE, OR WHY NOT")
FIGURES = frozenset({"READ", "STORED", "TIME", "RATE"})  # aligned to the right
GAP = "  "
UNKNOWN = "-"
SIGNIFICANT = 3  # digits of an amount
UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def table_lines(transfers: Sequence[Transfer]) -> list[tuple[str, Outcome | None]]:
    """Lines, each with the outcome it tells of; None for the titles. A hint stands below what it belongs to."""
    rows = [_cells(transfer) for transfer in transfers]
    widths = [max(_width(row[column]) for row in (TITLES, *rows)) for column in range(len(TITLES) - 1)]
    lines: list[tuple[str, Outcome | None]] = [(_line(TITLES, widths), None)]
    indent = " " * (sum(widths) + len(GAP) * len(widths))
    for transfer, row in zip(transfers, rows, strict=True):
        lines.append((_line(row, widths), transfer.outcome))
        if hint := printable(transfer.hint):
            lines.append((indent + hint, transfer.outcome))
    return lines


def summary_line(transfers: Iterable[Transfer]) -> str:
    """`3 ready, 1 failed`."""
    counts: dict[str, int] = {}
    for transfer in transfers:
        counts[transfer.outcome] = counts.get(transfer.outcome, 0) + 1
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items())


def _cells(transfer: Transfer) -> tuple[str, ...]:
    known = (
        transfer.host,
        transfer.vm,
        transfer.kind,
        transfer.outcome,
        transfer.mode,
        "" if transfer.bytes_read is None else amount(transfer.bytes_read),
        "" if transfer.bytes_stored is None else amount(transfer.bytes_stored),
        "" if transfer.duration is None else clock_time(transfer.duration),
        "" if transfer.rate is None else f"{amount(transfer.rate)}/s",
        _where(transfer),
    )
    return tuple(printable(cell) or UNKNOWN for cell in known)


def _where(transfer: Transfer) -> str:
    if not transfer.message:
        return transfer.url
    return f"{transfer.error_kind}: {transfer.message}" if transfer.error_kind else transfer.message


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = []
    for title, cell, width in zip(TITLES, cells, widths, strict=False):
        space = " " * (width - _width(cell))
        padded.append(space + cell if title in FIGURES else cell + space)
    return GAP.join([*padded, cells[-1]])


def _width(text: str) -> int:
    """Columns of a terminal."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(unicodedata.combining(letter) > 0 for letter in text)


def amount(count: float) -> str:
    """Bytes with three digits: 114 MB, 1.29 GB. Decimal, as disks and networks are sold."""
    power = 0
    while count >= 999.5 and power < len(UNITS) - 1:
        count, power = count / 1000, power + 1
    whole_digits = len(str(int(count)))
    return f"{count:.{max(0, SIGNIFICANT - whole_digits) if power else 0}f} {UNITS[power]}"


def clock_time(seconds: float) -> str:
    """0:12, 12:34, 1:02:03."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def printable(text: str) -> str:
    """One line without control characters: names and messages are others' to choose."""
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()
