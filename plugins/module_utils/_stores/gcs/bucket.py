# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A prefix in a bucket as one connection sees it: what the store, its writers and its probe share."""

from __future__ import annotations

import calendar
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable, Iterator, Mapping, Optional
from urllib.parse import quote

from ..._blocks import ObjectInfo
from ..._errors import VmferryError
from ..metadata import users_metadata
from .body import RelatedBody
from .connection import Connection
from .crc32c import crc32c, decoded, encoded

_FIELDS = "name,size,generation,timeCreated,crc32c"  # of what a listing says
_PAGE = 1000
Resource = Dict[str, Any]  # an object as the JSON API describes it


@dataclass(frozen=True)
class Bucket:
    connection: Connection
    name: str
    prefix: str  # empty, or ends in a slash
    storage_class: Optional[str] = None
    kms_key_name: Optional[str] = None

    @property
    def url(self) -> str:
        return f"gs://{self.name}/{self.prefix}".rstrip("/")

    @property
    def path(self) -> str:
        return f"/storage/v1/b/{quote(self.name, safe='')}/o"

    def path_of(self, key: str) -> str:
        return f"{self.path}/{quote(self.prefix + key, safe='')}"

    def doing(self, verb: str, key: str) -> str:
        return f"{verb} {self.url}/{key}".rstrip("/") + f" at {self.connection.endpoint_url}"

    def look(self, key: str) -> Optional[Resource]:
        try:
            return self.connection.json(self.doing("Looking at", key), "GET", self.path_of(key))
        except VmferryError as error:
            if error.kind == "not_found":
                return None
            raise

    def insert(
        self,
        doing: str,
        key: str,
        data: memoryview,
        *,
        claim: bool = True,
        condition: Optional[Mapping[str, str]] = None,
        metadata: Optional[Mapping[str, str]] = None,
    ) -> Resource:
        """An object of these bytes, by the server's own word. `claim`: tell it their checksum beforehand."""
        crc = crc32c(data)
        description = self.described(metadata)
        if claim:
            description["crc32c"] = encoded(crc)
        found = self.connection.json(
            doing,
            "POST",
            "/upload" + self.path,
            about_bucket=True,
            params={"uploadType": "multipart", "name": self.prefix + key, **self._key, **(condition or {})},
            body=RelatedBody(description, data, self.connection.alive),
        )
        self._require(found, doing, key, crc, len(data))
        return found

    def compose(
        self,
        doing: str,
        key: str,
        sources: Iterable[str],
        metadata: Optional[Mapping[str, str]] = None,
        condition: Optional[Mapping[str, str]] = None,
    ) -> Resource:
        """One object of up to 32. The sources are gone afterwards, for good and without a fee, where the server can.

        https://cloud.google.com/storage/docs/composing-objects
        """
        return self.connection.json(
            doing,
            "POST",
            f"{self.path_of(key)}/compose",
            params={**self._key, **(condition or {})},
            json={
                "sourceObjects": [{"name": self.prefix + source} for source in sources],
                "destination": self.described(metadata),
                "deleteSourceObjects": True,
            },
        )

    def described(self, metadata: Optional[Mapping[str, str]]) -> Resource:
        """What an object that is made here is to be."""
        described: Resource = {"contentType": "application/octet-stream"}
        if metadata:
            described["metadata"] = dict(metadata)
        if self.storage_class:
            described["storageClass"] = self.storage_class
        return described

    @property
    def _key(self) -> Dict[str, str]:
        return {"kmsKeyName": self.kms_key_name} if self.kms_key_name else {}

    def _require(self, found: Resource, doing: str, key: str, crc: int, size: int) -> None:
        if matches(found, crc, size):
            return
        if found.get("crc32c") is None:
            raise VmferryError(
                "unsupported",
                f"{doing} failed: the server does not tell the CRC32C of what it received.",
                "Check that endpoint_url is a Cloud Storage server.",
            )
        self.remove(key, found.get("generation"))
        raise VmferryError(
            "checksum_mismatch",
            f"{doing} failed: the server received other bytes than were sent.",
            "Check the network path.",
            retryable=True,
        )

    def remove(self, key: str, generation: Optional[str] = None) -> None:
        """No error where it is gone already. With its generation it goes for good where the bucket keeps versions."""
        try:
            self.connection.json(
                self.doing("Deleting", key),
                "DELETE",
                self.path_of(key),
                params={"generation": generation} if generation else {},
            )
        except VmferryError as error:
            if error.kind != "not_found":
                raise

    def listed(self, verb: str, prefix: str, **params: Any) -> Iterator[Resource]:
        """Pages of what there is below `prefix`, a key's beginning."""
        asked = {"prefix": self.prefix + prefix, "maxResults": _PAGE, "fields": _page_fields(params), **params}
        while True:
            doing = self.doing(verb, "")
            page = self.connection.json(doing, "GET", self.path, about_bucket=True, params=asked)
            yield page
            token = page.get("nextPageToken")
            if not token:
                return
            asked["pageToken"] = token

    def items(self, verb: str, prefix: str) -> Iterator[Resource]:
        """Each with its `key`, below the root of the store."""
        for page in self.listed(verb, prefix):
            for item in page.get("items") or []:
                if item["name"].startswith(self.prefix + prefix):
                    yield {**item, "key": item["name"][len(self.prefix) :]}

    def each(self, function: Callable[[Any], object], items: Iterable[Any]) -> None:
        """Several at a time. After an error no more are begun, and those that are under way have ended."""
        with ThreadPoolExecutor(self.connection.parallel) as pool:
            try:
                for done in [pool.submit(function, item) for item in items]:
                    done.result()
            except VmferryError:
                pool.shutdown(cancel_futures=True)
                raise


def _page_fields(params: Mapping[str, Any]) -> str:
    return f"nextPageToken,{'prefixes' if 'delimiter' in params else f'items({_FIELDS})'}"


def matches(found: Resource, crc: int, size: int) -> bool:
    """Whether this is what the server says of the object."""
    return decoded(str(found.get("crc32c", ""))) == crc and int(found.get("size", -1)) == size


def info_of(key: str, found: Resource, now: float) -> ObjectInfo:
    """`now`: by the server's clock, by which a lock is over."""
    metadata = users_metadata(found.get("metadata") or {})
    created = seconds(found.get("timeCreated", ""))
    return ObjectInfo(
        key, int(found.get("size", 0)), str(found.get("generation", "")), created, metadata, is_locked(found, now)
    )


def is_locked(found: Resource, now: float) -> bool:
    """By a hold, by its own retention or by the bucket's: https://cloud.google.com/storage/docs/object-lock."""
    held = bool(found.get("temporaryHold") or found.get("eventBasedHold"))
    ends = [found.get("retentionExpirationTime", ""), (found.get("retention") or {}).get("retainUntilTime", "")]
    return held or any(seconds(end) > now for end in ends)


def seconds(text: str) -> float:
    """Of RFC 3339 in UTC, with any number of digits behind the second; 0 where there is none."""
    if not text:
        return 0.0
    whole = calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S"))
    fraction = text[19:].rstrip("Z")
    return whole + (float(f"0{fraction}") if fraction.startswith(".") else 0.0)
