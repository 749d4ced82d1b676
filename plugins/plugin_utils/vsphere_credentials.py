# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control node's credentials for vSphere, and of which server they are. Files of the control node stay there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.vsphere_options import (
    are_certificates_validated,
    host_of,
)

# In order of preference, as the module's fallbacks.
_ACCOUNT = {"username": ("VMWARE_USER", "GOVC_USERNAME"), "password": ("VMWARE_PASSWORD", "GOVC_PASSWORD")}
_SERVER = {"hostname": ("VMWARE_HOST",), "port": ("VMWARE_PORT",), "thumbprint": ("VMFERRY_VSPHERE_THUMBPRINT",)}
CREDENTIALS = frozenset(_ACCOUNT)
OF_THE_HOST = frozenset(name for names in _ACCOUNT.values() for name in names)
WANTED = "Set VMWARE_USER and VMWARE_PASSWORD there, or vsphere.username and vsphere.password in the task."


def credentials(environment: Mapping[str, str], said: Collection[str]) -> dict[str, Any]:
    """`said`: the suboptions that the task gives. How its server is known by is for whoever names it to say."""
    found: dict[str, Any] = _found(environment, _ACCOUNT)
    if set(found) != CREDENTIALS:
        return {}
    if "hostname" in said:
        return found
    found.update(_found(environment, _SERVER))
    if "hostname" not in found and environment.get("GOVC_URL"):
        found["hostname"] = host_of(environment["GOVC_URL"])
    if not {"thumbprint", "ca_path"} & {*found, *said} and not are_certificates_validated(environment):
        found["validate_certs"] = False
    return found


def _found(environment: Mapping[str, str], options: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    values = {
        option: next((environment[name] for name in names if environment.get(name)), "")
        for option, names in options.items()
    }
    return {option: value for option, value in values.items() if value}
