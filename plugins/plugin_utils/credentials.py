# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control node's credentials for a store, handed to the host that needs them: as suboptions, which are no_log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.module_utils.common.validation import check_type_dict

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError

CREDENTIALS = frozenset({"profile", "access_key", "secret_key", "session_token"})
# What the module reads where nothing is handed over; a task that sets one of them has chosen.
_OF_THE_HOST = frozenset({"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"})
# An account's region and server belong to its keys: the names in order of preference, as the module's fallbacks.
_COMPANIONS = {
    "session_token": ("AWS_SESSION_TOKEN",),
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "endpoint_url": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
}


def hand_over(
    arguments: Mapping[str, Any], of_task: Mapping[str, Any], of_controller: Mapping[str, str]
) -> dict[str, Any]:
    """The arguments with what is handed over. `of_task`, `of_controller`: environment variables.

    All or nothing: credentials from two places are refused by every server, with an error that does not say why.
    Raises `invalid_config` where the controller must have some and has none.
    """
    source = arguments.get("credentials_from") or "auto"
    if source == "target" or not str(arguments.get("url") or "").startswith("s3://"):
        return dict(arguments)
    storage = _said(arguments.get("storage"))
    if storage is None or CREDENTIALS & storage.keys() or any(of_task.get(name) for name in _OF_THE_HOST):
        return dict(arguments)
    found = _credentials(of_controller)
    if not found and source == "controller":
        raise VmferryError(
            "invalid_config",
            "credentials_from is controller, and the control node's environment has no credentials for S3.",
            "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY there, or storage.access_key and secret_key in the task.",
            phase="validating",
        )
    return {**arguments, "storage": {**found, **storage}} if found else dict(arguments)


def _said(storage: Any) -> dict[str, Any] | None:
    """What the task says of the store. None: it cannot be read, which the module tells better."""
    try:
        said = check_type_dict(storage or {})
    except (TypeError, ValueError):
        return None
    return {name: value for name, value in said.items() if value is not None}


def _credentials(environment: Mapping[str, str]) -> dict[str, str]:
    access_key, secret_key = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
    if not access_key or not secret_key:
        return {}
    found = {"access_key": access_key, "secret_key": secret_key}
    for option, names in _COMPANIONS.items():
        value = next((environment[name] for name in names if environment.get(name)), None)
        if value is not None:
            found[option] = value
    return found
