# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a storage URL to its store: a table of functions, each with a static import inside, so that one is paid for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, FrozenSet, Mapping
from urllib.parse import urlsplit

from .._errors import VmferryError
from .azure.account import is_azure_host
from .base import Store
from .hosts import AllowedHosts
from .options import AZURE_OPTIONS, FILE_OPTIONS, GCS_OPTIONS, HTTP_OPTIONS, S3_OPTIONS

Settings = Mapping[str, Any]
Alive = Callable[[], object]


def _filesystem(url: str, settings: Settings, alive: Alive) -> Store:
    from .filesystem.store import open_filesystem

    return open_filesystem(url, settings)


def _nfs(url: str, settings: Settings, alive: Alive) -> Store:
    from .filesystem.store import open_nfs

    return open_nfs(url, settings)


def _s3(url: str, settings: Settings, alive: Alive) -> Store:
    from .s3.store import open_s3

    return open_s3(url, settings, alive)


def _http(url: str, settings: Settings, alive: Alive) -> Store:
    from .dav.store import open_dav

    return open_dav(url, settings, alive)


def _gcs(url: str, settings: Settings, alive: Alive) -> Store:
    from .gcs.store import open_gcs

    return open_gcs(url, settings, alive)


def _azure(url: str, settings: Settings, alive: Alive) -> Store:
    from .azure.store import open_azure

    return open_azure(url, settings, alive)


@dataclass(frozen=True)
class StoreKind:
    """What is known of a store by its URL and type alone: how many connections it is opened with depends on it."""

    name: str  # as `storage.type` says it
    opener: Callable[[str, Settings, Alive], Store]
    options: FrozenSet[str]  # of a task's `storage`, that it looks at
    any_offset: bool  # as its writers say: bytes go to their place at once, and no part of an object is kept in memory
    keeps_metadata: bool = True  # with its objects, whatever server it is
    checks_hosts: bool = False  # its requests go to `allowed_hosts` only, redirects included; or it makes none


_PATH = StoreKind("file", _filesystem, FILE_OPTIONS, any_offset=True, keeps_metadata=False, checks_hosts=True)
_S3 = StoreKind("s3", _s3, S3_OPTIONS, any_offset=False, checks_hosts=True)
_AZURE = StoreKind("azure", _azure, AZURE_OPTIONS, any_offset=False, checks_hosts=True)
_HTTP = StoreKind("http", _http, HTTP_OPTIONS, any_offset=False, keeps_metadata=False, checks_hosts=True)
_KINDS: Mapping[str, StoreKind] = {
    "azblob": _AZURE,
    "file": _PATH,
    "gs": StoreKind("gcs", _gcs, GCS_OPTIONS, any_offset=False, checks_hosts=True),
    "http": _HTTP,
    "https": _HTTP,
    "nfs": StoreKind("nfs", _nfs, FILE_OPTIONS, any_offset=True, keeps_metadata=False, checks_hosts=True),
    "s3": _S3,
}
_BY_TYPE: Mapping[str, StoreKind] = {"s3": _S3, "azure": _AZURE, "http": _HTTP}  # what speaks HTTP, and may be said to


_LOCKS = ("object_lock_mode", "object_lock_retention", "object_lock_retain_until", "object_lock_legal_hold")
WRITE = (
    "Write file:///srv/exports, nfs:///mnt/nas, s3://bucket/prefix, gs://bucket/prefix, azblob://container/prefix or "
    "https://host/path."
)


def open_store(url: str, settings: Settings, alive: Alive = lambda: None) -> Store:
    """The store at `url`: an absolute path, `file:///path`, `nfs:///path`, `s3://bucket/prefix`,
    `azblob://container/prefix`, `gs://bucket/prefix` or `https://host/path`.

    `settings` are the task's `storage` options, of which `type` says what answers at an HTTP address; `alive` is called
    while the bytes of one long call move. Nothing is written and nothing is asked of a server yet. Raises
    `invalid_config` for a URL or a setting that cannot be meant, `unsupported` for a scheme that is not known.
    """
    kind = store_kind(url, settings.get("type"))
    _refuse_promises(kind, settings)
    if AllowedHosts.from_options(settings).limited and not kind.checks_hosts:
        raise VmferryError(
            "unsupported",
            f"allowed_hosts is set, and nobody checks what hosts a store at {url.partition('://')[0]}:// sends to.",
            "Leave allowed_hosts out for this store.",
        )
    return kind.opener(url, settings, alive)


def _refuse_promises(kind: StoreKind, settings: Settings) -> None:
    """Whoever asks for a lock and is not told believes that nobody can delete what was stored."""
    wanted = [name for name in _LOCKS if settings.get(name)]
    if wanted and kind is not _S3:
        raise VmferryError(
            "invalid_config",
            f"The storage option {wanted[0]} is kept by S3 alone.",
            "Leave it out, and have the service itself protect what it stores.",
        )


def insist_on_exports(url: str, settings: Settings) -> None:
    """`invalid_config` where what is asked for cannot hold an export: its manifest and its images are of any size, and
    some of them are replaced."""
    if store_kind(url, settings.get("type")) is _AZURE and settings.get("blob_type") == "page":
        raise VmferryError(
            "invalid_config",
            f"blob_type is page, and {url} is to hold exports, which are made of block blobs.",
            "Leave blob_type out, or send single disks as page blobs with vmferry.migrate.storage_upload.",
        )


def store_kind(url: str, type: str | None = None) -> StoreKind:
    """`type`: of `storage.type`; None and `auto` leave it to the URL. Raises as `open_store` does for the two."""
    kind = _PATH if url.startswith("/") else _kind_of(url)
    if type in (None, "auto", kind.name):
        return kind
    if type in _BY_TYPE and url.startswith(("http://", "https://")):
        return _BY_TYPE[type]
    raise VmferryError(
        "invalid_config",
        f"The storage option type is {type}, and the storage URL is of the type {kind.name}.",
        f"Leave type out, or name an address for it. {WRITE}",
    )


def _kind_of(url: str) -> StoreKind:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise VmferryError("invalid_config", "The storage URL cannot be parsed.", WRITE) from error
    if "@" in parts.netloc:
        raise VmferryError(
            "invalid_config",
            f"The {parts.scheme} storage URL carries credentials before its '@'.",
            "Leave them out of the URL and put them into the storage options, which are kept out of logs.",
        )
    if parts.query or parts.fragment:
        raise VmferryError(
            "invalid_config", "The storage URL carries a query or a fragment, which no store takes.", WRITE
        )
    if parts.scheme == "https" and is_azure_host(parts.netloc):
        return _AZURE
    kind = _KINDS.get(parts.scheme)
    if kind is None:
        known = ", ".join(f"{scheme}://" for scheme in sorted(_KINDS))
        raise VmferryError(
            "unsupported" if parts.scheme else "invalid_config",
            f"The storage URL's scheme '{parts.scheme}' is not known.",
            f"Known are {known} and an absolute path.",
        )
    return kind
