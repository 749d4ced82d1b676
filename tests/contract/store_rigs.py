# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the store contract runs against. A new store adds one rig class here, and its servers to conftest.py."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex
from typing import Any, ClassVar

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import Kind
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.limited import LimitedStore
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.retrying import RetryingStore
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.s3.bucket import Bucket
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.s3.client import connect
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.s3.settings import S3Settings
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.s3.store import S3Store
from rigs.fault_proxy import Fault, FaultProxy
from rigs.mounting import mounted_ext4
from rigs.ports import free_port
from rigs.s3_server import S3Server
from rigs.small_objects import send_all

from .patience import Meter, Patience

MIB = 1024 * 1024


@dataclass(frozen=True)
class Declared:
    """What the system behind the rig really does. The probe must find exactly this out."""

    conditional_put: bool = True
    conditional_replace: bool = True
    verifies_checksums: bool = True
    keeps_metadata: bool = True
    any_offset: bool = False
    dates_uploads: bool = True  # tells when one began
    lists_hidden: bool = True  # names that begin with a dot


class StoreRig(ABC):
    name: ClassVar[str]
    declared: ClassVar[Declared]
    troubles: ClassVar[Mapping[str, Kind]]
    """Each bad day the rig can make, and the error that writing raises on it."""

    @abstractmethod
    def fresh(self) -> Store:
        """Below a root of its own."""

    @abstractmethod
    def leftovers(self, store: Store) -> list[str]:
        """Everything below the store's root, unfinished things included, looked at behind the store's back."""

    def add(self, store: Store, keys: Sequence[str]) -> None:
        """Objects of one byte; where that is faster, behind the store's back."""
        for key in keys:
            store.put(key, b"x")

    @abstractmethod
    def trouble(self, name: str) -> AbstractContextManager[Store]: ...

    @property
    def secrets(self) -> list[str]:
        return []


class FilesystemRig(StoreRig):
    name = "filesystem"
    declared = Declared(keeps_metadata=False, any_offset=True)
    troubles: ClassVar[Mapping[str, Kind]] = {
        "missing_root": "not_found",
        "read_only": "permission_denied",
        "full": "no_space",
        "full_disk": "no_space",
        "file_in_the_way": "permission_denied",
        "link_in_the_way": "permission_denied",
    }

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def fresh(self) -> Store:
        return open_store((self._folder / token_hex(4)).as_uri(), {})

    def leftovers(self, store: Store) -> list[str]:
        root = Path(store.url.removeprefix("file://"))
        return sorted(str(path.relative_to(root)) for path in root.rglob("*"))

    def add(self, store: Store, keys: Sequence[str]) -> None:
        add_files(Path(store.url.removeprefix("file://")), keys)

    @contextmanager
    def trouble(self, name: str) -> Iterator[Store]:
        root = self._folder / token_hex(4)
        root.mkdir()
        if name == "missing_root":
            yield open_store((root / "not" / "there").as_uri(), {})
        elif name == "read_only":
            with _tmpfs(root, "ro"):
                yield open_store(root.as_uri(), {})
        elif name == "full":
            with _tmpfs(root, "size=1m"):
                yield open_store(root.as_uri(), {})
        elif name == "full_disk":
            with mounted_ext4(root, root.with_suffix(".img"), 4 * MIB):
                yield open_store(root.as_uri(), {})
        else:
            if name == "file_in_the_way":
                (root / "vm").write_bytes(b"")
            else:
                (root / "vm").symlink_to(self._folder)
            yield open_store(root.as_uri(), {})


def add_files(root: Path, keys: Sequence[str]) -> None:
    for key in keys:
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


@contextmanager
def _tmpfs(folder: Path, options: str) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


class WrappedRig(FilesystemRig):
    """The wrappers keep every promise of what they wrap."""

    name = "wrapped"

    def fresh(self) -> Store:
        return RetryingStore(LimitedStore(super().fresh(), Meter()), Patience())

    @contextmanager
    def trouble(self, name: str) -> Iterator[Store]:
        with super().trouble(name) as store:
            yield RetryingStore(LimitedStore(store, Meter()), Patience())


class S3Rig(StoreRig):
    name = "s3"
    declared = Declared()
    troubles: ClassVar[Mapping[str, Kind]] = {
        "unreachable": "network",
        # SeaweedFS wants to make the bucket for whoever writes to it, and then finds that they may not.
        "missing_bucket": "permission_denied",
        "wrong_secret_key": "unauthenticated",
        "wrong_access_key": "unauthenticated",
        "access_denied": "permission_denied",
        "full": "no_space",
        "always_503": "rate_limited",
        "always_500": "network",
        "connection_reset": "network",
        "too_slow": "timeout",
        "not_s3": "network",
    }
    _faults: ClassVar[Mapping[str, Fault]] = {
        "access_denied": Fault(answer=403, body=b"<Error><Code>AccessDenied</Code></Error>"),
        "full": Fault(answer=507, body=b"<Error><Code>XMinioStorageFull</Code></Error>"),
        "always_503": Fault(answer=503, body=b"<Error><Code>SlowDown</Code></Error>"),
        "always_500": Fault(answer=500, body=b"<Error><Code>InternalError</Code></Error>"),
        "connection_reset": Fault(reset_after=0),
        "too_slow": Fault(delay=2),
        "not_s3": Fault(answer=200, body=b"<html><p>welcome", method="POST"),
    }

    def __init__(self, server: S3Server, proxy: FaultProxy) -> None:
        self.server, self.proxy = server, proxy
        self.client = server.client()
        self.bucket = f"exports-{token_hex(4)}"
        self.client.create_bucket(Bucket=self.bucket)
        options = S3Settings.from_options(server.settings)
        # One client for all tests: making one costs more than most of them.
        self._root = Bucket(connect(options), self.bucket, "", options.encryption(), options.secrets)

    def fresh(self) -> Store:
        return S3Store(replace(self._root, prefix=f"{token_hex(4)}/"))

    def open(self, alive: Callable[[], object] = lambda: None, **settings: Any) -> Store:
        return open_store(f"s3://{self.bucket}/{token_hex(4)}", {**self.server.settings, **settings}, alive)

    def leftovers(self, store: Store) -> list[str]:
        prefix = store.url.removeprefix(f"s3://{self.bucket}/") + "/"
        objects = self.client.list_objects_v2(Bucket=self.bucket, Prefix=prefix).get("Contents", [])
        uploads = self.client.list_multipart_uploads(Bucket=self.bucket, Prefix=prefix).get("Uploads", [])
        return sorted(entry["Key"].removeprefix(prefix) for entry in [*objects, *uploads])

    def add(self, store: Store, keys: Sequence[str]) -> None:
        prefix = store.url.removeprefix(f"s3://{self.bucket}/")
        urls = (
            self.client.generate_presigned_url("put_object", {"Bucket": self.bucket, "Key": f"{prefix}/{key}"})
            for key in keys
        )
        send_all(self.server.port, "PUT", [url.removeprefix(self.server.endpoint_url) for url in urls])

    @contextmanager
    def trouble(self, name: str) -> Iterator[Store]:
        if name == "unreachable":
            yield self.open(endpoint_url=f"http://127.0.0.1:{free_port()}")
        elif name == "missing_bucket":
            yield open_store("s3://no-such-bucket/exports", self.server.settings)
        elif name == "wrong_secret_key":
            yield self.open(secret_key="another-secret-key")
        elif name == "wrong_access_key":
            yield self.open(access_key="AKIDNOBODY")
        else:
            self.proxy.fail_always(self._faults[name])
            try:
                yield self.open(endpoint_url=self.proxy.endpoint_url, read_timeout=0.5)
            finally:
                self.proxy.reset()

    @property
    def secrets(self) -> list[str]:
        return [self.server.access_key, self.server.secret_key, "another-secret-key", "AKIDNOBODY"]


class SloppyS3Rig(S3Rig):
    """Takes any signature and any checksum."""

    name = "sloppy_s3"
    declared = Declared(verifies_checksums=False, dates_uploads=False)
    troubles: ClassVar[Mapping[str, Kind]] = {
        **{name: kind for name, kind in S3Rig.troubles.items() if not name.startswith("wrong_")},
        "missing_bucket": "not_found",
    }


# Below the classes they are made of.
from .azure_rig import AzureRig as AzureRig
from .dav_rig import NginxDavRig as NginxDavRig
from .dav_rig import RcloneDavRig as RcloneDavRig
from .gcs_rig import GcsEmulatorRig as GcsEmulatorRig
from .gcs_rig import GcsRig as GcsRig
from .nfs_rig import NfsRig

RIGS: tuple[type[StoreRig], ...] = (
    *(FilesystemRig, WrappedRig, NfsRig),
    *(S3Rig, SloppyS3Rig, AzureRig, GcsRig, GcsEmulatorRig),
    *(NginxDavRig, RcloneDavRig),
)
