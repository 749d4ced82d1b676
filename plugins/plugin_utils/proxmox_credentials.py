# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control node's credentials for Proxmox VE, and of which cluster they are. Its files stay there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.environment import truth
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.proxmox_options import VALIDATE

_USER = {"api_user": "PROXMOX_USER"}
_TOKEN = {"api_token_id": "PROXMOX_TOKEN_ID", "api_token_secret": "PROXMOX_TOKEN_SECRET"}
_PASSWORD = {"api_password": "PROXMOX_PASSWORD"}
_SERVER = {"api_host": "PROXMOX_HOST", "api_port": "PROXMOX_PORT"}
CREDENTIALS = frozenset({*_USER, *_TOKEN, *_PASSWORD})
OF_THE_HOST = frozenset({*_USER.values(), *_TOKEN.values(), *_PASSWORD.values()})
WANTED = (
    "Set PROXMOX_USER with PROXMOX_TOKEN_ID and PROXMOX_TOKEN_SECRET, or with PROXMOX_PASSWORD, there; or "
    "proxmox.api_user and what belongs to it in the task."
)


def credentials(environment: Mapping[str, str], said: Collection[str]) -> dict[str, Any]:
    """`said`: the suboptions that the task gives. How its server is known by is for whoever names it to say."""
    ways = [{**_USER, **_TOKEN}, {**_USER, **_PASSWORD}]
    found: dict[str, Any] = next((one for one in (_found(environment, way) for way in ways) if one), {})
    if not found or "api_host" in said:
        return found
    found.update({option: environment[name] for option, name in _SERVER.items() if environment.get(name)})
    if not {"ca_path", "validate_certs"} & set(said) and truth(environment, VALIDATE) is False:
        found["validate_certs"] = False
    return found


def _found(environment: Mapping[str, str], options: Mapping[str, str]) -> dict[str, str]:
    """All of them, or nothing."""
    values = {option: environment.get(name) or "" for option, name in options.items()}
    return values if all(values.values()) else {}
