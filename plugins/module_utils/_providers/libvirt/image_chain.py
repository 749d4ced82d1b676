# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk's images, from the newest to its base, each opened in the format that is written down, never a guessed one."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

from ..._errors import VmferryError
from ..._images.local_clusters import Layer
from ..._nbd.qemu_img import image_info

LONGEST_CHAIN = 200
FORMATS = ("qcow2", "raw")


@dataclass(frozen=True)
class ImageChain:
    size: int  # bytes, as the guest sees it
    layers: tuple[Layer, ...]


def read_chain(path: str, format: str) -> ImageChain:
    """Raises `unsupported` for other formats and for encrypted images, `invalid_config` for an unnamed format."""
    layers: list[Layer] = []
    seen: list[tuple[int, int]] = []
    size = 0
    backing: str | None = path
    while backing is not None:
        if format not in FORMATS:
            raise VmferryError("unsupported", f"{backing} is a {format} image; supported are {' and '.join(FORMATS)}.")
        if len(layers) == LONGEST_CHAIN:
            raise VmferryError("invalid_config", f"{path} stands on more than {LONGEST_CHAIN} images.")
        seen.append(_checked(backing, format, seen))
        info = image_info(backing, format)
        if info.get("encrypted"):
            raise VmferryError("unsupported", f"{backing} is encrypted.", "Export the VM while it runs.")
        size = size or info["virtual-size"]
        layers.append(Layer(backing, format))
        backing, format = _next(info, backing)
    return ImageChain(size, tuple(layers))


def _checked(path: str, format: str, seen: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Which file it is. Raises before QEMU would open a file that no name of ours leads to: with root's rights, and
    whatever file the image's header names.
    """
    from ..._images.inspect.file import inspected_file  # it knows all formats, and a VM that runs needs none of it

    with inspected_file(Path(path), format, header_only=True) as image:
        if image.description.objects("data_file"):
            text = f"{path} has its data in another file, which its own header names."
            raise VmferryError("unsupported", text, "A VM with such a disk can only be exported while it runs.")
        found = os.fstat(image.descriptor)
    identity = (found.st_dev, found.st_ino)
    if identity in seen:
        raise VmferryError("invalid_config", f"{path} stands on itself.", "Look at it with qemu-img info.")
    return identity


def cluster_map(layers: Sequence[Layer]) -> Iterator[Mapping[str, Any]]:
    """`qemu-img map`, one entry after the other: of a large disk it has millions. `layers`: newest first, and all."""
    from ..._nbd.qemu_nbd import node_of

    path = layers[0].path
    command = ["qemu-img", "map", "--output=json", node_of([(Path(layer.path), layer.format) for layer in layers])]
    with subprocess.Popen(  # pylint: disable=ansible-bad-function
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        for line in process.stdout or ():
            text = line.strip().strip(b"[],")
            if text:
                yield json.loads(text)
        complaint = (process.stderr.read() if process.stderr else b"").decode(errors="replace").strip()
    if process.returncode:
        raise VmferryError("internal", f"The map of {path} cannot be had: {complaint}.")


def paths(chains: Sequence[ImageChain]) -> list[str]:
    return [layer.path for chain in chains for layer in chain.layers]


def _next(info: Mapping[str, Any], path: str) -> tuple[str | None, str]:
    name = info.get("full-backing-filename") or info.get("backing-filename")
    if not name:
        return None, ""
    if name.startswith("json:") or ("://" in name.partition("/")[0] + "//" and ":" in name.partition("/")[0]):
        raise VmferryError("unsupported", f"{path} stands on {name}, which is not a file.", "Export it while it runs.")
    format = info.get("backing-filename-format")
    if not format:
        raise VmferryError(
            "invalid_config",
            f"{path} does not say which format its backing file {name} has, and a guess can be led astray by a guest.",
            f"Write it down: qemu-img rebase -u -b {name} -F FORMAT {path}",
        )
    return name, format
