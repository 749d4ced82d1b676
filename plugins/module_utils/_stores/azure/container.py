# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A prefix in a container as one client sees it: what the store, its writers and its probe share."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from ..._blocks import ObjectInfo
from ..._errors import VmferryError
from ..metadata import UPLOAD_TOKEN, made_by, percent_decoded, percent_encoded
from .errors import ContainerMissing, translated
from .session import AzureSession

_SAFE = "!#$&'()*+,/:;=?@[]"  # in the value of metadata
Block = Tuple[str, int]  # its id and its size


@dataclass(frozen=True)
class Container:
    client: Any
    session: AzureSession
    url: str  # of the store
    prefix: str  # empty, or ends in a slash
    secrets: Sequence[str]
    tier: Optional[str] = None
    alive: Callable[[], object] = lambda: None  # called while the bytes of a body move

    def blob(self, key: str) -> Any:
        return self.client.get_blob_client(self.prefix + key)

    @property
    def creating(self) -> Dict[str, Any]:
        """Options of whatever makes an object that is to stay."""
        return {"standard_blob_tier": tier_of(self.tier.capitalize())} if self.tier else {}

    @contextmanager
    def doing(self, verb: str, key: str, *, checked: bool = False) -> Iterator[None]:
        where = f"{self.url}/{key}".rstrip("/")
        with translated(f"{verb} {where} at {self.client.primary_hostname}", self.secrets, checked=checked):
            yield

    def pages(self, verb: str, key: str, items: Any) -> Iterator[List[Any]]:
        """Of an `ItemPaged`, which asks the server while it is iterated over."""
        pages = items.by_page()
        while True:
            with self.doing(verb, key):
                page = next(pages, None)
                found = None if page is None else list(page)
            if found is None:
                return
            yield found

    def properties(self, key: str) -> Any:
        """The SDK's `BlobProperties`; None where there is no such object."""
        try:
            with self.doing("Looking at", key):
                return self.blob(key).get_blob_properties()
        except ContainerMissing:
            raise
        except VmferryError as error:
            if error.kind == "not_found":
                return None
            raise

    def head(self, key: str) -> ObjectInfo | None:
        """With the upload's token still among the metadata. What is being copied to is no object yet, and what could
        not be copied is none."""
        found = self.properties(key)
        if found is None or not is_whole(found):
            return None
        metadata = decode_metadata(found.metadata or {})
        return ObjectInfo(
            key,
            int(found.size),
            quoted(found.etag),
            found.last_modified.timestamp(),
            metadata,
            _is_locked(found, self.session.now),
        )

    def remove(self, key: str, condition: Mapping[str, Any] | None = None) -> None:
        """What is not there is no error. `condition`: of the SDK."""
        try:
            with self.doing("Deleting", key):
                self.blob(key).delete_blob(**(condition or {}))
        except ContainerMissing:
            raise
        except VmferryError as error:
            # Of a condition on what is gone, maybe by an earlier call whose answer was lost, an emulator says conflict.
            gone = error.kind == "conflict" and condition and self.properties(key) is None
            if error.kind != "not_found" and not gone:
                raise

    def marked(self, metadata: Mapping[str, str] | None, mark: str) -> Dict[str, str]:
        """As Azure takes it, with the word of the upload that makes the object."""
        return encode_metadata({**(metadata or {}), UPLOAD_TOKEN: mark})

    def if_marked(self, key: str, mark: str) -> ObjectInfo | None:
        """The object, where that upload made it; without its word."""
        return made_by(mark, self.head(key))

    def hiding(self, *secrets: str) -> Container:
        """Itself, with more that no message may repeat."""
        return replace(self, secrets=[*self.secrets, *filter(None, secrets)])

    def blocks(self, key: str) -> List[Block] | None:
        """Those that are not committed; None where there is neither an object nor a block."""
        try:
            with self.doing("Listing the blocks of", key):
                _unused, uncommitted = self.blob(key).get_block_list("uncommitted")
        except VmferryError as error:
            if error.kind == "not_found":
                return None
            raise
        return [(str(block.id), int(block.size)) for block in uncommitted]


def is_whole(found: Any) -> bool:
    """Of the SDK's `BlobProperties`: a copy that is under way can be seen, with some of its bytes or none."""
    status = getattr(getattr(found, "copy", None), "status", None)
    return status in (None, "success")


def is_pages(found: Any) -> bool:
    """Of the SDK's `BlobProperties`."""
    return str(getattr(found.blob_type, "value", found.blob_type)) == "PageBlob"


def tier_of(name: str) -> Any:
    """The SDK's word for what Azure calls Hot, Cool or Cold."""
    from azure.storage.blob import StandardBlobTier

    try:
        return StandardBlobTier(name)
    except ValueError as error:
        raise VmferryError(
            "invalid_config",
            f"The installed azure-storage-blob does not know the access tier {name}.",
            "Install a newer azure-storage-blob, or set another access_tier.",
        ) from error


def quoted(etag: Optional[str]) -> str:
    """As headers carry it; listings leave the quotes out."""
    bare = (etag or "").strip('"')
    return f'"{bare}"' if bare else ""


def unchanged(etag: str) -> Dict[str, Any]:
    from azure.core import MatchConditions

    return {"etag": quoted(etag), "match_condition": MatchConditions.IfNotModified}


def absent() -> Dict[str, Any]:
    from azure.core import MatchConditions

    return {"match_condition": MatchConditions.IfMissing}


def _is_locked(found: Any, now: float) -> bool:
    until = getattr(getattr(found, "immutability_policy", None), "expiry_time", None)
    retained = until is not None and until.timestamp() > now
    return retained or bool(getattr(found, "has_legal_hold", False))


def encode_metadata(metadata: Mapping[str, str] | None) -> Dict[str, str]:
    """As Azure takes it: names are C# identifiers, which have no '-' and begin with no digit."""
    return {_identifier(name): value for name, value in percent_encoded(metadata, _SAFE).items()}


def _identifier(name: str) -> str:
    bare = name.replace("-", "_")
    return bare if bare[0].isalpha() else f"_{bare}"


def decode_metadata(metadata: Mapping[str, str]) -> Dict[str, str]:
    return {_decoded(name): value for name, value in percent_decoded(metadata).items()}


def _decoded(name: str) -> str:
    return (name[1:] if name.startswith("_") else name).replace("_", "-")
