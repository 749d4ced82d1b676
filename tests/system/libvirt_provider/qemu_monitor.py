# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU's own word on bitmaps and on the power button, past libvirt."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import libvirt_qemu

from rigs.domain import Guest

PM1_STATUS, PM1_ENABLE = 0x600, 0x602  # I/O ports, where SeaBIOS puts them
POWER_BUTTON = 1 << 8


def bitmaps_in_memory(guest: Guest) -> set[str]:
    return {bitmap["name"] for node in _nodes(guest) for bitmap in node.get("dirty-bitmaps", ()) if "name" in bitmap}


def bitmaps_in_image(image: Path) -> set[str]:
    """Of a VM that is off."""
    command = ["qemu-img", "info", "--output=json", "-f", "qcow2", str(image)]
    said = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return {bitmap["name"] for bitmap in said["format-specific"]["data"].get("bitmaps", ())}


def remove_bitmap(guest: Guest, image: Path, name: str) -> None:
    _ask(guest, "block-dirty-bitmap-remove", node=_node_of(guest, image), name=name)


def clear_bitmap(guest: Guest, image: Path, name: str) -> None:
    """It says from now on that nothing changed until now."""
    _ask(guest, "block-dirty-bitmap-clear", node=_node_of(guest, image), name=name)


def write_as_guest(guest: Guest, device: str, offset: int, length: int, fill: int) -> None:
    """Through its virtio disk, of this alias, as all that it writes; durable when it returns."""
    backend = f"/machine/peripheral/{device}/virtio-backend"
    for command in (f"write -P {fill} {offset} {length}", "flush"):
        said = _say(guest, f'qemu-io -d {backend} "{command}"')
        assert "rror" not in said, said


def listen_to_power_button(guest: Guest) -> None:
    """As its system does when it boots: of ACPI's registers, bit 8 of PM1 enable."""
    _say(guest, f"o /h {PM1_ENABLE:#x} {POWER_BUTTON:#x}")


def power_button_was_pressed(guest: Guest) -> bool:
    """Since the guest listened: bit 8 of PM1 status."""
    return bool(int(_say(guest, f"i /xh {PM1_STATUS:#x}").split("=")[1], 16) & POWER_BUTTON)


def _node_of(guest: Guest, image: Path) -> str:
    (node,) = [one["node-name"] for one in _nodes(guest) if one["file"] == str(image) and one["drv"] == "qcow2"]
    return str(node)


def _nodes(guest: Guest) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = _ask(guest, "query-named-block-nodes", flat=True)
    return found


def _ask(guest: Guest, command: str, **arguments: Any) -> Any:
    text = json.dumps({"execute": command, "arguments": arguments})
    answer = json.loads(libvirt_qemu.qemuMonitorCommand(guest.domain, text, 0))
    assert "error" not in answer, answer["error"]
    return answer["return"]


def _say(guest: Guest, command: str) -> str:
    """A command for people."""
    said: str = libvirt_qemu.qemuMonitorCommand(guest.domain, command, libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP)
    return said
