# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A folder on a real NFS 4.1 mount."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import ClassVar
from urllib.parse import unquote

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import Kind
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from rigs.mounting import mounted_tmpfs
from rigs.nfs import NfsServer, nfs_mount, nfs_server

from .store_rigs import Declared, StoreRig, add_files


class NfsRig(StoreRig):
    name = "nfs"
    declared = Declared(keeps_metadata=False, any_offset=True)
    troubles: ClassVar[Mapping[str, Kind]] = {
        "not_mounted": "not_found",
        "read_only": "permission_denied",
        "full": "no_space",
        "server_gone": "network",
        "file_in_the_way": "permission_denied",
        "link_in_the_way": "permission_denied",
    }

    def __init__(self, home: Path, server: NfsServer, point: Path) -> None:
        self._home, self._server, self._point = home, server, point

    @classmethod
    @contextmanager
    def started(cls, home: Path) -> Iterator[NfsRig]:
        """The server's folder is in memory: it flushes every write that it answers."""
        with _mounted(home / "all", "size=2g") as (server, point):
            yield cls(home, server, point)

    def fresh(self) -> Store:
        return open_store(f"nfs://{self._point}/{token_hex(4)}", {})

    @contextmanager
    def from_another_host(self, store: Store) -> Iterator[Store]:
        """The same root, by a mount of its own."""
        point = self._home / token_hex(4)
        point.mkdir()
        with nfs_mount(self._server, point):
            yield open_store(f"nfs://{point}/{Path(unquote(store.url)).name}", {})

    def leftovers(self, store: Store) -> list[str]:
        """On the server, but for what was removed while this host has it open: that is gone when it is closed."""
        root = self._server.folder / Path(unquote(store.url)).name
        found = (path for path in root.rglob("*") if not path.name.startswith(".fuse_hidden"))
        return sorted(str(path.relative_to(root)) for path in found)

    def add(self, store: Store, keys: Sequence[str]) -> None:
        add_files(self._server.folder / Path(unquote(store.url)).name, keys)

    @contextmanager
    def trouble(self, name: str) -> Iterator[Store]:
        home = self._home / token_hex(4)
        if name == "not_mounted":
            home.mkdir()
            yield open_store(f"nfs://{home}", {})
        elif name == "full":
            with _mounted(home, "size=1m") as (_server, point):
                yield open_store(f"nfs://{point}", {})
        elif name == "read_only":
            with _mounted(home, "size=1m", read_only=True) as (_server, point):
                yield open_store(f"nfs://{point}", {})
        elif name == "server_gone":
            with _mounted(home, "size=1m") as (server, point):
                store = open_store(f"nfs://{point}", {})
                store.put("before", b"x")
                server.process.kill()
                yield store
        else:
            root = self._point / token_hex(4)
            root.mkdir()
            if name == "file_in_the_way":
                (root / "vm").write_bytes(b"")
            else:
                (root / "vm").symlink_to(self._home)
            yield open_store(f"nfs://{root}", {})


@contextmanager
def _mounted(home: Path, options: str, *, read_only: bool = False) -> Iterator[tuple[NfsServer, Path]]:
    served, point = home / "served", home / "mounted"
    for folder in (served, point):
        folder.mkdir(parents=True)
    with (
        mounted_tmpfs(served, options),
        nfs_server(served, read_only=read_only) as server,
        nfs_mount(server, point),
    ):
        yield server, point
