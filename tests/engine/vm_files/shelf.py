# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A folder of images, and a store for their exports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.describe_vms import describe_vms
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.export_vm import export_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    ExportRequest,
    ProviderSpec,
    StoreSpec,
    TransferOptions,
)

from ..appliances.archives import VMDK, archive, descriptor, sums
from ..images.disks import MIB, run

SIZE = 3 * MIB
GUEST = bytes(MIB) + Random(5).randbytes(MIB) + bytes(MIB - 512) + b"end!" * 128


@dataclass(frozen=True)
class Shelf:
    folder: Path

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def provider(self) -> ProviderSpec:
        return ProviderSpec("image", {"url": self.images.as_uri(), "storage": {}})

    def raw(self, name: str, data: bytes = GUEST) -> Path:
        path = self.images / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        return path

    def image(self, name: str, format: str, *options: str) -> Path:
        """Of the guest's disk, as QEMU writes it."""
        raw = self.folder / "guest.raw"
        raw.write_bytes(GUEST)
        path = self.images / name
        path.parent.mkdir(exist_ok=True)
        run("qemu-img", "convert", "-f", "raw", "-O", format, *options, raw, path)
        return path

    def ova(self, name: str = "app.ova", checked: bool = True) -> dict[str, bytes]:
        files = {"app.ovf": descriptor([("d.vmdk", "d1", str(SIZE)), ("", "d2", str(MIB))], format=VMDK)}
        files["d.vmdk"] = self.image("d.vmdk", "vmdk", "-o", "subformat=streamOptimized").read_bytes()
        (self.images / "d.vmdk").unlink()
        files = {**files, "app.mf": sums(files)} if checked else files
        (self.images / name).write_bytes(archive(files))
        return files

    def vms(self, *names: str, **filters: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = describe_vms(self.provider, names or None, filters)["vms"]
        return found

    def export(self, vm: str, *, check_mode: bool = False, **asked: Any) -> dict[str, Any]:
        transfer = TransferOptions(state_dir=str(self.folder / "state"))
        store = StoreSpec((self.folder / "store").as_uri())
        return export_vm(ExportRequest(self.provider, store, vm, transfer=transfer, **asked), check_mode)

    def content(self, made: dict[str, Any], disk: int = 0) -> bytes:
        """As QEMU reads what was exported, through all it stands on."""
        image = self.folder / "store" / made["export"]["disks"][disk]["url"].partition("/store/")[2]
        run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, self.folder / "back.raw")
        return (self.folder / "back.raw").read_bytes()

    def stored(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "store").rglob("*") if path.is_file())


def refused(work: Callable[[], object], kind: str, words: str) -> VmferryError:
    with pytest.raises(VmferryError) as raised:
        work()
    assert raised.value.kind == kind
    assert words in raised.value.message
    return raised.value
