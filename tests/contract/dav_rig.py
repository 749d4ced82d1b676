# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store contract's rigs of HTTP servers: nginx over TLS with a bearer token, rclone with a user and a password."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any, ClassVar
from urllib.request import Request, urlopen

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import Kind
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.retrying import RetryingStore
from rigs.fault_proxy import Fault, FaultProxy
from rigs.ports import free_port
from rigs.webdav import DavServer

from .patience import Patience
from .store_rigs import Declared, StoreRig, add_files


class NginxDavRig(StoreRig):
    """Takes any checksum, keeps no metadata, and tells of no file whose name begins with a dot."""

    name = "nginx_dav"
    declared = Declared(verifies_checksums=False, keeps_metadata=False, lists_hidden=False)
    troubles: ClassVar[Mapping[str, Kind]] = {
        "unreachable": "network",
        "missing_root": "not_found",
        "wrong_token": "unauthenticated",
        "access_denied": "permission_denied",
        "full": "no_space",
        "always_503": "rate_limited",
        "always_500": "network",
        "connection_reset": "network",
        "too_slow": "timeout",
        "not_webdav": "unsupported",
        "read_only": "unsupported",
        "locked": "busy",
    }
    _faults: ClassVar[Mapping[str, Fault]] = {
        "access_denied": Fault(answer=403),
        "full": Fault(answer=507, method="PUT"),
        "always_503": Fault(answer=503),
        "always_500": Fault(answer=500),
        "connection_reset": Fault(reset_after=0),
        "too_slow": Fault(delay=2),
        "not_webdav": Fault(answer=200, body=b"<html><p>welcome", method="PROPFIND"),
        "read_only": Fault(answer=405, method="PUT"),
        "locked": Fault(answer=423, method="PUT"),
    }

    def __init__(self, server: DavServer, proxy: FaultProxy) -> None:
        self.server, self.proxy = server, proxy

    def fresh(self) -> Store:
        return self.open()

    def open(self, alive: Callable[[], object] = lambda: None, url: str = "", **settings: Any) -> Store:
        """Below a root of its own. `url`: instead of the server's."""
        root = token_hex(4)
        self.make(root)
        return open_store(f"{url or self.server.url}/{root}", {**self.server.settings, **settings}, alive)

    def make(self, root: str) -> None:
        (self.server.data / root).mkdir()

    def folder(self, store: Store) -> Path:
        """Where its objects lie."""
        return self.server.data / store.url.rpartition("/")[2]

    def add(self, store: Store, keys: Sequence[str]) -> None:
        add_files(self.folder(store), keys)

    def leftovers(self, store: Store) -> list[str]:
        """Without folders that hold nothing, which stay where nobody can be sure of that; an upload's is one thing."""
        root = self.folder(store)
        found = [path for path in root.rglob("*") if path.is_file() or self.declared.lists_hidden or _is_upload(path)]
        return sorted(str(path.relative_to(root)) for path in found if not any(map(_is_upload, path.parents)))

    @contextmanager
    def trouble(self, name: str) -> Iterator[Store]:
        if name == "unreachable":
            yield self.open(url=f"http://127.0.0.1:{free_port()}")
        elif name == "missing_root":
            yield open_store(f"{self.server.url}/{token_hex(4)}/not/there", self.server.settings)
        elif name in ("wrong_token", "wrong_password"):
            yield self.open(**{name.removeprefix("wrong_"): "of-somebody-else"})
        else:
            self.proxy.fail_always(self._faults[name])
            try:
                yield self.open(url=self.proxy.endpoint_url, read_timeout=0.5)
            finally:
                self.proxy.reset()

    @property
    def secrets(self) -> list[str]:
        return [str(self.server.settings["token"]), "of-somebody-else"]


def _is_upload(path: Path) -> bool:
    return path.suffix == ".part"


class RcloneDavRig(NginxDavRig):
    """Keeps half of what was sent when a connection breaks, and breaks it when what it sends is replaced meanwhile: so
    it is asked again, as every job does."""

    name = "rclone_dav"
    declared = Declared(verifies_checksums=False, keeps_metadata=False)
    troubles: ClassVar[Mapping[str, Kind]] = {
        **{name: kind for name, kind in NginxDavRig.troubles.items() if name != "wrong_token"},
        "wrong_password": "unauthenticated",
    }

    def fresh(self) -> Store:
        return RetryingStore(self.open(), Patience())

    def make(self, root: str) -> None:
        """By its own hand: for minutes it goes by what it remembers of a folder."""
        pair = b64encode(f"{self.server.settings['username']}:{self.server.settings['password']}".encode()).decode()
        headers = {"Authorization": f"Basic {pair}"}
        with urlopen(Request(f"{self.server.url}/{root}", method="MKCOL", headers=headers)):
            pass

    @property
    def secrets(self) -> list[str]:
        return [str(self.server.settings["password"]), "of-somebody-else"]
