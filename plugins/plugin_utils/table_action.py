# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All of a module that prints rows: what debug prints is JSON, in quotes and in one line, which no table survives."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from .progress_lines import printable


class TableAction(ActionBase):
    _requires_connection = False
    _supports_check_mode = True

    @abstractmethod
    def table(self, rows: Sequence[dict[str, Any]], kind: str) -> list[str]:
        """`kind`: plan or summary."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _unused, arguments = self.validate_argument_spec(
            {
                "rows": {"type": "list", "elements": "dict", "required": True},
                "kind": {"type": "str", "choices": ["plan", "summary"], "required": True},
            }
        )
        lines = [printable(line) for line in self.table(arguments["rows"], arguments["kind"])]
        Display().display("\n".join(lines))
        return {**result, "changed": False, "lines": lines}
