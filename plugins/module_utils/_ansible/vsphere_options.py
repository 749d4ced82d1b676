# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to reach vSphere: options named as in community.vmware, filled in from its variables and from those of govc."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

from ansible.module_utils.errors import AnsibleFallbackNotFound
from ansible.module_utils.parsing.convert_bool import boolean


def _variable(*names: str) -> str:
    """The first that is set to something: a template that had nothing sets an empty one."""
    for name in names:
        if os.environ.get(name):
            return os.environ[name]
    raise AnsibleFallbackNotFound


def _hostname(plain: str, url: str) -> str:
    """govc's URL without the user that it may name, whose password must not be shown with the host."""
    try:
        return _variable(plain)
    except AnsibleFallbackNotFound:
        text = _variable(url)
    return urlsplit(text if "://" in text else f"https://{text}").netloc.rpartition("@")[2]


def _validate_certs(validate: str, insecure: str) -> bool:
    try:
        return bool(boolean(_variable(validate)))
    except AnsibleFallbackNotFound:
        return not boolean(_variable(insecure))


def vsphere_options() -> dict[str, dict[str, Any]]:
    return {
        "vsphere": {
            "type": "dict",
            "apply_defaults": True,  # or the environment is not asked when the whole dict is left out
            "options": {
                "hostname": {"type": "str", "fallback": (_hostname, ["VMWARE_HOST", "GOVC_URL"])},
                "port": {"type": "int", "fallback": (_variable, ["VMWARE_PORT"])},
                "username": {"type": "str", "fallback": (_variable, ["VMWARE_USER", "GOVC_USERNAME"])},
                "password": {
                    "type": "str",
                    "no_log": True,
                    "fallback": (_variable, ["VMWARE_PASSWORD", "GOVC_PASSWORD"]),
                },
                "validate_certs": {
                    "type": "bool",
                    "default": True,
                    "fallback": (_validate_certs, ["VMWARE_VALIDATE_CERTS", "GOVC_INSECURE"]),
                },
                "ca_path": {"type": "path", "fallback": (_variable, ["GOVC_TLS_CA_CERTS"])},
                "thumbprint": {"type": "str", "fallback": (_variable, ["VMFERRY_VSPHERE_THUMBPRINT"])},
                "proxy_host": {"type": "str", "fallback": (_variable, ["VMWARE_PROXY_HOST"])},
                "proxy_port": {"type": "int", "fallback": (_variable, ["VMWARE_PROXY_PORT"])},
            },
        },
    }
