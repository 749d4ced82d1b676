# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place where an operation meets Ansible: its result becomes the module's, its error a failure."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any, Callable, Mapping

from ansible.module_utils.basic import AnsibleModule

from .._errors import VmferryError
from .argspec import ArgumentSpec, TaskArguments
from .masking import forms_of

Operation = Callable[[TaskArguments, bool], Mapping[str, Any]]


def run(spec: ArgumentSpec, operation: Operation) -> None:
    """`operation` takes the task's arguments and whether this is check mode. Ends the process."""
    module = spec.create_module()
    hide_encoded_secrets(module)
    try:
        result = operation(TaskArguments(module), module.check_mode)
    except VmferryError as error:
        fail(module, error)
    except Exception as error:  # noqa: BLE001  # uncaught, it would be printed without its secrets masked
        fail(module, _defect(error))
    else:
        succeed(module, result)


def succeed(module: AnsibleModule, result: Mapping[str, Any]) -> None:
    module.exit_json(**_told(module, result))


def _told(module: AnsibleModule, result: Mapping[str, Any]) -> dict[str, Any]:
    left_out = {"warnings"} if module._diff else {"warnings", "diff"}
    for warning in result.get("warnings", ()):
        module.warn(warning)  # in the result itself they are deprecated
    return {name: value for name, value in result.items() if name not in left_out}


def fail(module: AnsibleModule, error: VmferryError) -> None:
    """Called while the error is handled: Ansible adds its traceback where the user turned tracebacks on."""
    details: dict[str, Any] = {**_told(module, error.done), "error": error.as_result()}
    if error.job:
        details["job"] = error.job
    module.fail_json(error.message, **details)


def _defect(error: Exception) -> VmferryError:
    last = traceback.extract_tb(error.__traceback__)[-1]
    defect = VmferryError(
        "internal",
        f"Unexpected {type(error).__name__} in {Path(last.filename).name}, line {last.lineno}: {error}",
        "This is a defect of the collection. Please report it, with what ANSIBLE_DISPLAY_TRACEBACK=error adds.",
    )
    defect.job = getattr(error, "job", None)  # the job notes itself on whatever ends it
    return defect


def hide_encoded_secrets(module: AnsibleModule) -> None:
    """Ansible masks a secret as it was typed; errors of servers quote it as it was sent."""
    for secret in tuple(module.no_log_values):
        module.no_log_values.update(forms_of(str(secret)))
