# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opens images one after the other, to be watched from outside: `python open_images.py SOCKET_DIR MODE IMAGE...`

MODE is `foreign`, `despite` (also on another image, of which nothing may be seen) or `trusting`, which is how nobody
should. Prints what was read of each, or why it was not, as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import BlockSource
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.qemu_nbd import serve
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.source import NbdSource
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.foreign_image import open_foreign_image


@contextmanager
def opened(image: Path, mode: str, folder: Path) -> Iterator[BlockSource]:
    if mode == "trusting":
        with serve(image, image.suffix[1:], read_only=True, socket_dir=folder) as server:
            yield NbdSource(server.address)
        return
    despite = frozenset({"backing_file", "data_file", "outside"} if mode == "despite" else ())
    with open_foreign_image(image, socket_dir=folder, despite=despite) as source:
        yield source


def told(image: Path, mode: str, folder: Path) -> dict[str, str]:
    try:
        with opened(image, mode, folder) as source:
            data = bytearray(source.size)
            source.read_into([(0, memoryview(data))])
    except VmferryError as error:
        return {"error": error.message}
    return {"head": data[:4096].hex(), "rest": "zeros" if not any(data[4096:]) else "data"}


if __name__ == "__main__":
    folder, mode, *images = sys.argv[1:]
    print(json.dumps({Path(image).name: told(Path(image), mode, Path(folder)) for image in images}))
