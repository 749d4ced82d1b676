# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of all transfers of a run, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ._text_table import NOTHING, text_table
from .progress_lines import amount, clock_time, printable
from .transfer_report import Outcome, Transfer

TITLES = ("HOST", "VM", "KIND", "OUTCOME", "MODE", ">READ", ">STORED", ">TIME", ">RATE", "WHERE, OR WHAT WENT WRONG")


def table_lines(transfers: Sequence[Transfer]) -> list[tuple[str, Outcome | None]]:
    """Lines, each with the outcome it tells of; None for the titles. A hint stands below what it belongs to."""
    rows: list[tuple[Sequence[str], Outcome]] = []
    for transfer in transfers:
        rows.append((_cells(transfer), transfer.outcome))
        if hint := _one_line(transfer.hint):
            rows.append(([""] * (len(TITLES) - 1) + [hint], transfer.outcome))
    lines = text_table(TITLES, [cells for cells, _outcome in rows])
    return list(zip(lines, [None, *(outcome for _cells, outcome in rows)], strict=True))


def summary_line(transfers: Iterable[Transfer]) -> str:
    """`3 ready, 1 failed`."""
    counts = Counter(transfer.outcome for transfer in transfers)
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items())


def _cells(transfer: Transfer) -> list[str]:
    names = (transfer.host, transfer.vm, transfer.kind, transfer.outcome, transfer.mode)
    return [
        *(_one_line(name) or NOTHING for name in names),
        NOTHING if transfer.bytes_read is None else amount(transfer.bytes_read),
        NOTHING if transfer.bytes_stored is None else amount(transfer.bytes_stored),
        NOTHING if transfer.duration is None else clock_time(transfer.duration),
        NOTHING if transfer.rate is None else f"{amount(transfer.rate)}/s",
        _one_line(_where(transfer)) or NOTHING,
    ]


def _where(transfer: Transfer) -> str:
    if not transfer.message:
        return transfer.url
    return f"{transfer.error_kind}: {transfer.message}" if transfer.error_kind else transfer.message


def _one_line(text: str) -> str:
    """Messages of other programs may have several."""
    return printable(" ".join(text.split()))
