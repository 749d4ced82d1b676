# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A place that VMs are imported to as files, and what others find there."""

from __future__ import annotations

import hashlib
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.vmferry.migrate.plugins.module_utils._operations.describe_vms import describe_vms
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.import_vm import import_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    ImportRequest,
    ProviderSpec,
    StoreSpec,
    TransferOptions,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Placement

from ..images.disks import run
from .shelf import Shelf

QEMU = {"vhd": "vpc", "vhd_dynamic": "vpc", "vmdk_sparse": "vmdk", "ovf": "vmdk", "ova": "vmdk", "ova_gz": "vmdk"}


@dataclass(frozen=True)
class WritingShelf(Shelf):
    @property
    def written(self) -> Path:
        return self.folder / "written"

    @property
    def target(self) -> ProviderSpec:
        return ProviderSpec("image", {"url": self.written.as_uri(), "storage": {}})

    def bring(self, url: str, name: str = "web", *, check_mode: bool = False, **asked: Any) -> dict[str, Any]:
        """Import `url`; placement's options among `asked`."""
        of_request = {one: asked.pop(one) for one in ("vm", "export", "detach", "networks", "seals") if one in asked}
        transfer = TransferOptions(state_dir=str(self.folder / "state"), **asked.pop("transfer", {}))
        return import_vm(self.request(url, Placement(name, **asked), transfer, of_request), check_mode)

    def request(
        self, url: str, placement: Placement, transfer: TransferOptions, of_request: dict[str, Any]
    ) -> ImportRequest:
        return ImportRequest(self.target, StoreSpec(url), placement, transfer=transfer, **of_request)

    def told(self, *names: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = describe_vms(self.target, names or None, {})["vms"]
        return found

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.written)) for path in self.written.rglob("*") if path.is_file())

    def members(self, name: str = "web") -> dict[str, Path]:
        """By their names in the descriptor; those of an archive are unpacked."""
        archives = [path for path in self.written.glob(f"{name}.ova*") if path.is_file()]
        if not archives:
            return {path.name: path for path in (self.written / name).iterdir()}
        unpacked = self.folder / "unpacked"
        with tarfile.open(archives[0]) as tar:
            tar.extractall(unpacked, filter="data")
            return {member: unpacked / member for member in tar.getnames()}

    @property
    def exports(self) -> str:
        return (self.folder / "store").as_uri()

    def at(self, name: str) -> str:
        """The URL of a file that is read."""
        return (self.images / name).as_uri()

    def again(self) -> Shelf:
        """What was written, as a place that VMs are read from."""
        return _Other(self.folder)


class _Other(Shelf):
    @property
    def images(self) -> Path:
        return self.folder / "written"


def assert_summed_up(files: dict[str, Path]) -> None:
    (sums,) = [path for name, path in files.items() if name.endswith(".mf")]
    listed = dict(re.findall(r"SHA256\((.*)\)= ([0-9a-f]{64})\n", sums.read_text()))
    found = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items() if path != sums}
    assert listed == found


def assert_same(image: Path, format: str, guest: Path) -> None:
    """As QEMU sees both."""
    run("qemu-img", "compare", "-f", QEMU.get(format, format), "-F", "raw", image, guest)
