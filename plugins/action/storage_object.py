# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control node's part of `storage_object`: hands over the credentials of the store, as for a transfer."""

from __future__ import annotations

from typing import Any

from ansible_collections.vmferry.migrate.plugins.plugin_utils.transfer_action import TransferAction


class ActionModule(TransferAction):
    """It moves no bytes, so there is nothing to watch."""

    def _transfer(
        self, arguments: dict[str, Any], environment: dict[str, Any], task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(
            module_args=arguments, task_vars=task_vars, wrap_async=self._task.async_val
        )
        return result
