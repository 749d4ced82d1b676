# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place where an operation meets Ansible: its result becomes the module's, its error a failure."""

from __future__ import annotations

import base64
import json
import traceback
from typing import Any, Callable
from urllib.parse import quote, quote_plus

from ansible.module_utils.basic import AnsibleModule

from .._errors import VmferryError
from .argspec import ArgumentSpec, TaskArguments

Operation = Callable[[TaskArguments, bool], "dict[str, Any]"]


def run(spec: ArgumentSpec, operation: Operation) -> None:
    """`operation` takes the task's arguments and whether this is check mode. Ends the process."""
    module = spec.create_module()
    hide_encoded_secrets(module)
    try:
        result = operation(TaskArguments(module), module.check_mode)
    except VmferryError as error:
        fail(module, error)
    except Exception as error:  # noqa: BLE001  # uncaught, it would be printed without its secrets masked
        fail(module, _defect(error), exception=traceback.format_exc())
    else:
        if not module._diff:
            result.pop("diff", None)
        module.exit_json(**result)


def fail(module: AnsibleModule, error: VmferryError, **more: Any) -> None:
    job = getattr(error, "job", None)
    if job:
        more["job"] = job
    module.fail_json(msg=error.message, error=error.as_result(), **more)


def _defect(error: Exception) -> VmferryError:
    what = f"{type(error).__name__}: {error}"
    return VmferryError(
        "internal",
        f"Unexpected {what.rstrip(': ')}",
        "This is a defect of the collection. Please report it with the output of the task run with -vvv.",
    )


def hide_encoded_secrets(module: AnsibleModule) -> None:
    """Ansible masks a secret as it was typed; errors of servers quote it as it was sent."""
    for secret in tuple(module.no_log_values):
        text = str(secret)
        module.no_log_values.update(
            {
                quote(text, safe=""),
                quote_plus(text),
                json.dumps(text)[1:-1],
                base64.b64encode(text.encode()).decode(),
            }
        )
