# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The provider `image`: a VM is a folder of raw images, and is on while somebody has them open to write."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import IO, Any, ClassVar

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import Kind
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import ProviderSpec

from .base import Abilities, Broken, Driver, Fate, Power, data_of, folder_of


class ImageDriver(Driver):
    name = "image"
    sources = "plugins/module_utils/_operations/vm_files"
    abilities = Abilities(imports=True)
    failpoints: ClassVar[Mapping[str, Mapping[str, Fate]]] = {
        "import": {
            "noted": "undone",
            "window-delivered": "undone",
            "files_sent": "undone",
            "text_written": "undone",
            "files_whole": "whole",
        },
    }
    # Nobody tracks what changes in files, and imports are written as exports are.
    passed_by = frozenset({"token_kept", "tokens_forgotten", "window-copied"})

    def __init__(self, folder: Path) -> None:
        self._images = folder_of(folder, "images")
        self._made: list[Path] = []
        self._open: dict[str, list[IO[bytes]]] = {}

    @classmethod
    def started(cls, fixture: Callable[[str], Any], folder: Path) -> ImageDriver:
        return cls(folder)

    def close(self) -> None:
        for vm in list(self._open):
            self.power(vm, "off")

    @property
    def spec(self) -> ProviderSpec:
        return ProviderSpec("image", {"url": self._images.as_uri(), "storage": {}})

    @property
    def broken(self) -> Broken:
        return Broken(ProviderSpec("image", {"url": f"file://{self._images}/nowhere", "storage": {}}), "not_found")

    def with_secrets(self, fixture: Callable[[str], Any], data: bytes) -> tuple[str, ProviderSpec, Sequence[str]]:
        """On a WebDAV server that wants a token."""
        server = fixture("nginx_dav").server
        below = folder_of(server.data, self._images.parent.name)
        (folder_of(below, "secret") / "disk0.raw").write_bytes(data)
        settings = dict(server.settings)
        return (
            "secret",
            ProviderSpec("image", {"url": f"{server.url}/{below.name}", "storage": settings}),
            [settings["token"]],
        )

    def make_vm(self, *disks: bytes, power: Power = "off") -> str:
        folder = folder_of(self._images, f"vm-{len(self._made)}")
        self._made.append(folder)
        for data in disks:
            self.add_disk(folder.name, data)
        self.power(folder.name, power)
        return folder.name

    def power(self, vm: str, power: Power) -> None:
        for file in self._open.pop(vm, []):
            file.close()
        if power == "on":
            self._open[vm] = [path.open("r+b") for path in self._paths(vm)]

    def is_on(self, vm: str) -> bool:
        return vm in self._open

    def write(self, vm: str, disk: int, offset: int, data: bytes) -> None:
        with self._paths(vm)[disk].open("r+b") as file:
            file.seek(offset)
            file.write(data)

    def zero(self, vm: str, disk: int, offset: int, length: int) -> None:
        self.write(vm, disk, offset, bytes(length))

    def discard(self, vm: str, disk: int, offset: int, length: int) -> None:
        punch = ["fallocate", "--punch-hole", "--offset", str(offset), "--length", str(length)]
        subprocess.run([*punch, str(self._paths(vm)[disk])], check=True)

    def read(self, vm: str, disk: int) -> bytes:
        return data_of(self._paths(vm)[disk])

    def add_disk(self, vm: str, data: bytes) -> None:
        path = self._images / vm / f"disk{len(self._paths(vm))}.raw"
        path.write_bytes(data)
        subprocess.run(["fallocate", "--dig-holes", str(path)], check=True)

    def remove_disk(self, vm: str) -> None:
        self._paths(vm)[-1].unlink()

    def grow(self, vm: str, disk: int, size: int) -> None:
        with self._paths(vm)[disk].open("r+b") as file:
            file.truncate(size)

    @property
    def placement(self) -> Mapping[str, Any]:
        return {"disk_format": "raw"}

    @property
    def wrong_placements(self) -> Sequence[tuple[Mapping[str, Any], Kind, str]]:
        return (
            ({"storage": "/elsewhere"}, "invalid_config", "placement.storage"),
            ({"disk_format": "vdi"}, "unsupported", "vdi"),
        )

    def in_the_way(self, vm: str) -> Path:
        return self._images / f"{vm}.ova"

    def left_of_imports(self) -> Iterator[str]:
        for path in self._images.iterdir():
            if path not in self._made:
                yield f"{path} is there"

    def remove_vm(self, vm: str) -> None:
        shutil.rmtree(self._images / vm)

    def leftovers(self, vm: str, tokens: Set[str]) -> Iterator[str]:
        for path in self._images.rglob("*"):
            if path.is_file() and path.suffix != ".raw":
                yield f"{path} is there"
        for token in tokens - {""}:
            yield f"{token} is the change token of an export, and nobody knows it"

    def _paths(self, vm: str) -> list[Path]:
        return sorted((self._images / vm).glob("*.raw"))
