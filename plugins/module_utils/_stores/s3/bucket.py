# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A prefix in a bucket as one client sees it: what the store, its writers and its probe share."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, Mapping, Sequence

from ..._blocks import ObjectInfo
from ..._errors import VmferryError
from ..metadata import percent_decoded
from ..server_clock import ServerClock
from .errors import translated
from .settings import Encryption


@dataclass(frozen=True)
class Bucket:
    client: Any
    name: str
    prefix: str  # empty, or ends in a slash
    encryption: Encryption
    secrets: Sequence[str]
    alive: Callable[[], object] = lambda: None  # called while the bytes of a body move
    storage_class: str = ""  # of uploads; small objects cost more in every class but the default

    @property
    def url(self) -> str:
        return f"s3://{self.name}/{self.prefix}".rstrip("/")

    def at(self, key: str) -> Dict[str, str]:
        return {"Bucket": self.name, "Key": self.prefix + key}

    def uploading(self) -> Dict[str, Any]:
        """What an upload says where it begins."""
        chosen = {"StorageClass": self.storage_class} if self.storage_class else {}
        return {**self.encryption.creating(), **chosen}

    @contextmanager
    def doing(self, verb: str, key: str) -> Iterator[None]:
        with translated(self._sentence(verb, key), self.secrets):
            yield

    @contextmanager
    def reading(self, verb: str, key: str) -> Iterator[None]:
        """As `doing`, for what answers with an object, or about it."""
        with translated(self._sentence(verb, key), self.secrets, bool(self.encryption.customer_key)):
            yield

    def pages(self, operation: str, verb: str, key: str, **arguments: Any) -> Iterator[Dict[str, Any]]:
        """Of an operation that lists."""
        pages = iter(self.client.get_paginator(operation).paginate(**arguments))
        while True:
            with self.doing(verb, key):
                page = next(pages, None)
            if page is None:
                return
            yield page

    def _sentence(self, verb: str, key: str) -> str:
        where = f"{self.url}/{key}".rstrip("/")
        return f"{verb} {where} at {self.client.meta.endpoint_url}"

    def head(self, key: str) -> ObjectInfo | None:
        """With the upload's token still among the metadata."""
        try:
            with self.reading("Looking at", key):
                answer = self.client.head_object(**self.at(key), **self.encryption.using())
        except VmferryError as error:
            if error.kind == "not_found":
                return None
            raise
        return ObjectInfo(
            key,
            int(answer["ContentLength"]),
            answer.get("ETag", ""),
            answer["LastModified"].timestamp(),
            percent_decoded(answer.get("Metadata", {})),
            _is_locked(answer),
            answer.get("ContentType", ""),
        )


def _is_locked(answer: Mapping[str, Any]) -> bool:
    until, clock = answer.get("ObjectLockRetainUntilDate"), ServerClock()
    clock.learn(answer["ResponseMetadata"]["HTTPHeaders"].get("date", ""))
    retained = until is not None and until.timestamp() > clock.now
    return retained or answer.get("ObjectLockLegalHoldStatus") == "ON"
