# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports from AWS into a folder, as tasks ask for them, and what is in them as QEMU alone reads it."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.vmferry.migrate.plugins.module_utils._operations.export_vm import export_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    ExportRequest,
    ProviderSpec,
    StoreSpec,
    TransferOptions,
)
from rigs.aws import AwsServer
from rigs.aws.blocks import BLOCK, GIB

DEVICES = ("/dev/sda1", "/dev/sdb", "/dev/sdc")


def block(number: int) -> bytes:
    """That is like no other, and whose leaves differ."""
    return b"".join(bytes([number % 251 + 1, leaf]) * 32768 for leaf in range(8))


def disk(*numbers: int) -> bytes:
    """Of blocks; 0 is one of zeros."""
    return b"".join(block(number) if number else bytes(BLOCK) for number in numbers)


@dataclass(frozen=True)
class Exports:
    aws: AwsServer
    folder: Path

    def request(self, vm: str, **options: Any) -> ExportRequest:
        asked = {
            "provider": ProviderSpec("aws", self.aws.settings()),
            "store": self.store,
            "transfer": TransferOptions(state_dir=str(self.folder / "state")),
            **options,
        }
        return ExportRequest(vm=vm, **asked)

    @property
    def store(self) -> StoreSpec:
        return StoreSpec((self.folder / "store").as_uri())

    def make(self, vm: str, *, check_mode: bool = False, **options: Any) -> dict[str, Any]:
        return export_vm(self.request(vm, **options), check_mode)

    def assert_content(self, export: Mapping[str, Any], disks: Sequence[bytes], sizes: Sequence[int] = ()) -> None:
        """Through all it stands on. Behind what is given, a disk of so many bytes is zeros."""
        assert len(export["disks"]) == len(disks)
        for number, (one, data) in enumerate(zip(export["disks"], disks)):
            expected = self.folder / f"expected-{number}"
            with expected.open("wb") as file:
                file.write(data)
                file.truncate(sizes[number] if sizes else GIB)
            image = one["url"].removeprefix("file://")
            command = ["qemu-img", "compare", "-f", "qcow2", "-F", "raw", image, str(expected)]
            found = subprocess.run(command, capture_output=True, text=True, check=False)
            assert found.returncode == 0, f"disk {number}: {found.stdout}{found.stderr}"

    def volumes(self, vm: str) -> list[str]:
        return list(self.aws.volumes(vm).values())

    def snapshots(self, vm: str) -> list[dict[str, Any]]:
        """Of ours, of this instance, whatever they are for."""
        found: list[dict[str, Any]] = self.aws.ec2.describe_snapshots(
            OwnerIds=["self"], Filters=[{"Name": "tag:vmferry:vm", "Values": [vm]}]
        )["Snapshots"]
        return found

    def states(self, vm: str) -> list[str]:
        return sorted(
            tag["Value"] for one in self.snapshots(vm) for tag in one["Tags"] if tag["Key"] == "vmferry:state"
        )
