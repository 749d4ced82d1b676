# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All of `print_lines`: what debug prints is JSON, in quotes and escaped, which no table survives."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.vmferry.migrate.plugins.plugin_utils.progress_lines import printable


class ActionModule(ActionBase):
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        specification = {"lines": {"type": "list", "elements": "str", "required": True}}
        _unused, arguments = self.validate_argument_spec(specification)
        lines = [printable(line) for line in arguments["lines"]]
        Display().display("\n".join(lines))  # in one go, so that those of other hosts do not come between
        return {**result, "changed": False, "lines": lines}
