# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose work something on a provider is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """Whose work this is; in the name or description of everything that is made on a provider."""

    job_id: str
    attempt: str  # 8 hex digits, the export's or import's own
    chain: str = ""  # 8 hex digits

    @property
    def token(self) -> str:
        return f"vmferry-{self.chain}-{self.attempt}"
