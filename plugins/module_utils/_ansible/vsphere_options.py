# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to reach vSphere: options named as in community.vmware, filled in from its variables and from those of govc."""

from __future__ import annotations

import os
from typing import Any, Collection, Mapping
from urllib.parse import urlsplit

from .argspec import invalid, without_unset
from .environment import truth, variable


def vsphere_settings(values: Mapping[str, Any], said: Collection[str]) -> dict[str, Any]:
    """With what the environment says where that depends on other settings. `said`: what the task itself gives."""
    settings = without_unset(values)
    if "hostname" not in settings and os.environ.get("GOVC_URL"):
        settings["hostname"] = host_of(os.environ["GOVC_URL"])
    if "validate_certs" in said:
        if not settings["validate_certs"] and "ca_path" not in said:
            settings.pop("ca_path", None)
    elif not settings.get("ca_path") and not settings.get("thumbprint"):
        settings["validate_certs"] = are_certificates_validated(os.environ)
    return settings


def host_of(url: str) -> str:
    """Without the user that it may name, whose password must not be shown with the host."""
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
    except ValueError:
        parts = urlsplit("@")
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":
        hint = "In a password, write %23 for #, %2F for /, %3F for ? and %5B for [; or set VMWARE_HOST instead."
        raise invalid("The environment variable GOVC_URL is no URL.", hint)
    return parts.netloc.rpartition("@")[2]


def are_certificates_validated(environment: Mapping[str, str]) -> bool:
    for name, wanted in (("VMWARE_VALIDATE_CERTS", True), ("GOVC_INSECURE", False)):
        said = truth(environment, name)
        if said is not None:
            return said is wanted
    return True


def vsphere_options() -> dict[str, dict[str, Any]]:
    return {
        "vsphere": {
            "type": "dict",
            "apply_defaults": True,  # or the environment is not asked when the whole dict is left out
            "options": {
                "hostname": {"type": "str", "fallback": (variable, ["VMWARE_HOST"])},
                "port": {"type": "int", "fallback": (variable, ["VMWARE_PORT"])},
                "username": {"type": "str", "fallback": (variable, ["VMWARE_USER", "GOVC_USERNAME"])},
                "password": {
                    "type": "str",
                    "no_log": True,
                    "fallback": (variable, ["VMWARE_PASSWORD", "GOVC_PASSWORD"]),
                },
                "validate_certs": {"type": "bool", "default": True},
                "ca_path": {"type": "path", "fallback": (variable, ["GOVC_TLS_CA_CERTS"])},
                "thumbprint": {"type": "str", "fallback": (variable, ["VMFERRY_VSPHERE_THUMBPRINT"])},
                "proxy_host": {"type": "str", "fallback": (variable, ["VMWARE_PROXY_HOST"])},
                "proxy_port": {"type": "int", "fallback": (variable, ["VMWARE_PROXY_PORT"])},
                "host_map": {"type": "dict"},
                "vddk_libdir": {"type": "path"},
                "nbd_uri": {"type": "str"},
            },
        },
    }
