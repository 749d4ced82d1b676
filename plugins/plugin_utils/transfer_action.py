# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action plugin of every module that moves bytes."""

from __future__ import annotations

import os
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError

from .credentials_of_all import hand_over_all
from .live_job import LiveJob
from .watch_options import WatchOptions, without_watcher


class TransferAction(ActionBase):
    """Starts the module as a job of its own and watches it. Under `async`, and in check mode, it steps aside."""

    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        environment: dict[str, Any] = {}
        self._compute_environment_string(environment)
        try:
            arguments = hand_over_all(self._task.args, environment, os.environ)
            result.update(self._transfer(arguments, environment, task_vars))
        except VmferryError as error:
            result.update(failed=True, msg=error.message, error=error.as_result())
        return result

    def _transfer(
        self, arguments: dict[str, Any], environment: dict[str, Any], task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        task = self._task
        if task.async_val:
            arguments["controller_timeout"] = without_watcher(arguments)
            return self._execute_module(module_args=arguments, task_vars=task_vars, wrap_async=task.async_val)
        if task.check_mode:
            return self._execute_module(module_args=arguments, task_vars=task_vars)
        return LiveJob(self, arguments, environment, task_vars, WatchOptions.of(arguments)).run()
