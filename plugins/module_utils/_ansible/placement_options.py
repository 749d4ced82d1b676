# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a VM lands: the same for every module that makes one."""

from __future__ import annotations

from .._providers.base import Placement
from .argspec import ArgumentSpec, TaskArguments, without_unset
from .values import count, mebibytes, name_map, network_names

LOWEST_VMID = 100  # Proxmox VE keeps those below for itself


def placement_arguments() -> ArgumentSpec:
    return ArgumentSpec(
        {
            "hardware": {
                "type": "dict",
                "options": {
                    "cpu": {"type": "int"},
                    "memory": {"type": "str"},
                    "networks": {"type": "list", "elements": "str"},
                },
            },
            "placement": {
                "type": "dict",
                "apply_defaults": True,
                "options": {
                    "storage": {"type": "str"},
                    "disk_format": {"type": "str"},
                    "disk_bus": {"type": "str"},
                    "disk_provisioning": {"type": "str", "choices": ["thin", "thick", "eager"]},
                    "folder": {"type": "str"},
                    "cluster": {"type": "str"},
                    "host": {"type": "str"},
                    "resource_pool": {"type": "str"},
                    "firmware": {"type": "str", "choices": ["bios", "uefi"]},
                    "keep_mac": {"type": "bool", "default": False},
                    "keep_uuid": {"type": "bool", "default": False},
                    "power_on": {"type": "bool", "default": False},
                    "stop_at": {"type": "str", "choices": ["snapshot", "image", "instance"]},
                    "instance_type": {"type": "str"},
                    "subnet_id": {"type": "str"},
                    "security_groups": {"type": "list", "elements": "str"},
                    "key_name": {"type": "str", "no_log": False},
                    "iam_instance_profile": {"type": "str"},
                    "volume_type": {"type": "str", "choices": ["gp3", "gp2", "st1", "sc1", "standard"]},
                    "encrypted": {"type": "bool", "default": False},
                    "kms_key_id": {"type": "str", "no_log": False},
                    "vmid": {"type": "int"},
                },
            },
            "network_map": {"type": "dict"},
            "storage_map": {"type": "dict"},
            "detach": {"type": "list", "elements": "str", "choices": ["cdrom", "floppy"], "default": []},
        }
    )


def placement(arguments: TaskArguments, name: str) -> Placement:
    """`name`: of the VM to be."""
    hardware = without_unset(arguments["hardware"] or {})
    placed = without_unset(arguments["placement"])
    if "vmid" in placed:
        count("placement.vmid", placed["vmid"], LOWEST_VMID)
    return Placement(
        name=name,
        cpu=count("hardware.cpu", hardware["cpu"], 1) if "cpu" in hardware else 0,
        memory_mb=mebibytes("hardware.memory", hardware["memory"]) if "memory" in hardware else 0,
        network_map=name_map("network_map", arguments["network_map"]),
        storage_map=name_map("storage_map", arguments["storage_map"]),
        **placed,
    )


def new_networks(arguments: TaskArguments) -> tuple[str, ...] | None:
    """None where the task leaves them out."""
    return network_names("hardware.networks", (arguments["hardware"] or {}).get("networks"))
