# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to reach Proxmox VE: options named as in community.proxmox, filled in from the variables that it knows."""

from __future__ import annotations

import os
from typing import Any, Collection, Mapping

from .argspec import without_unset
from .environment import truth, variable

PASSWORD, TOKEN = ("api_password",), ("api_token_id", "api_token_secret")
VALIDATE = "PROXMOX_VALIDATE_CERTS"


def proxmox_settings(values: Mapping[str, Any], said: Collection[str]) -> dict[str, Any]:
    """With what the environment says where that depends on other settings. `said`: what the task itself gives."""
    settings = _with_one_secret(without_unset(values), said)
    if "validate_certs" in said:
        if not settings["validate_certs"] and "ca_path" not in said:
            settings.pop("ca_path", None)
    elif not settings.get("ca_path") and truth(os.environ, VALIDATE) is False:
        settings["validate_certs"] = False
    return settings


def _with_one_secret(settings: dict[str, Any], said: Collection[str]) -> dict[str, Any]:
    """A task's password with a token of the environment would be neither's. Where the environment has both, the token
    counts, as in community.proxmox."""
    names = {*PASSWORD, *TOKEN}
    mine = names & set(said)
    if not mine:
        mine = set(TOKEN) if set(TOKEN) <= settings.keys() else set(PASSWORD)
    elif mine & set(TOKEN):
        mine = {*mine, *TOKEN}  # its name in the task, its secret in the environment
    return {name: value for name, value in settings.items() if name not in names or name in mine}


def proxmox_options() -> dict[str, dict[str, Any]]:
    return {
        "proxmox": {
            "type": "dict",
            "apply_defaults": True,  # or the environment is not asked when the whole dict is left out
            "options": {
                "api_host": {"type": "str", "fallback": (variable, ["PROXMOX_HOST"])},
                "api_port": {"type": "int", "fallback": (variable, ["PROXMOX_PORT"])},
                "api_user": {"type": "str", "fallback": (variable, ["PROXMOX_USER"])},
                "api_password": {"type": "str", "no_log": True, "fallback": (variable, ["PROXMOX_PASSWORD"])},
                # A token's name is no secret, and masking a word like `backup` would mask it in URLs and VM names too.
                "api_token_id": {"type": "str", "no_log": False, "fallback": (variable, ["PROXMOX_TOKEN_ID"])},
                "api_token_secret": {"type": "str", "no_log": True, "fallback": (variable, ["PROXMOX_TOKEN_SECRET"])},
                "validate_certs": {"type": "bool", "default": True},
                "ca_path": {"type": "path", "fallback": (variable, ["PROXMOX_CA_PATH"])},
                # Without a fallback: PROXMOX_API_TIMEOUT is set for calls of others, and far too short for these.
                "api_timeout": {"type": "int", "default": 60},
                "transport": {"type": "str", "choices": ["auto", "node", "ssh", "api"], "default": "auto"},
                "host_map": {"type": "dict"},
                "ssh_user": {"type": "str", "default": "root"},
                "ssh_port": {"type": "int", "default": 22},
                "ssh_private_key_file": {"type": "path", "no_log": False},
                "ssh_known_hosts": {"type": "path"},
                "fleecing_storage": {"type": "str"},
            },
        },
    }
