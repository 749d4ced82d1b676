# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image file that nobody vouches for, opened as a disk: inspected, and read by a locked-down `qemu-nbd`."""

from __future__ import annotations

from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import FrozenSet, Iterator

from ..._blocks import BlockSource
from ..._errors import VmferryError
from ..._images.inspect.approved_node import approved_node
from ..._images.inspect.file import inspected_file
from ..._images.inspect.words import Description, Limits, Objection
from ..._nbd.confined_nbd import Confinement, inherited_file, serve_confined
from ..._nbd.source import NbdSource


@contextmanager
def open_foreign_image(
    path: Path,
    format: str = "",
    *,
    socket_dir: Path,
    limits: Limits | None = None,
    despite: FrozenSet[Objection] = frozenset(),
    snapshot_id: str = "",
) -> Iterator[BlockSource]:
    """The guest's disk. `snapshot_id`: of a snapshot inside, in the place of the present. `despite`: objections that do
    not count.

    The file must not change meanwhile: it has to lie where whoever made it cannot write any more.
    Raises `invalid_config` for an image that is not approved, and what `serve` of `qemu_nbd` does.
    """
    if snapshot_id:
        despite = despite | {"internal_snapshots"}
    with ExitStack() as stack:
        image = stack.enter_context(inspected_file(path, format, limits))
        found = image.description
        file = inherited_file(image.descriptor)
        node = approved_node(found, file, str(path), despite=despite, is_block_device=image.is_block_device)
        served = serve_confined(
            node,
            path,
            image.descriptor,
            socket_dir=socket_dir,
            snapshot_id=snapshot_id,
            confinement=Confinement.of_disk(found.size),
        )
        source = stack.enter_context(closing(NbdSource(stack.enter_context(served).address)))
        _insist_on_size(path, found, source)
        yield source


def _insist_on_size(path: Path, found: Description, source: NbdSource) -> None:
    """Where QEMU sees another disk, one of the two was led astray."""
    if not found.size <= source.size < found.size + 512:
        text = f"{path} is a disk of {found.size} bytes by its header, and QEMU reads one of {source.size}."
        raise VmferryError("invalid_config", text, "Ask its author for another image, or for another format.")
