# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A prefix in a bucket as one client sees it: what the store, its writers and its probe share."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, Mapping, Sequence
from urllib.parse import quote, unquote

from .._blocks import ObjectInfo
from .._errors import VmferryError
from .s3_client import Encryption
from .s3_errors import translated

UPLOAD_TOKEN = "vmferry-upload"  # metadata that tells which upload an object came from
_METADATA_KEY = re.compile(r"[a-z0-9-]+")


@dataclass(frozen=True)
class Bucket:
    client: Any
    name: str
    prefix: str  # empty, or ends in a slash
    encryption: Encryption
    secrets: Sequence[str]
    alive: Callable[[], object] = lambda: None  # called while the bytes of a body move

    @property
    def url(self) -> str:
        return f"s3://{self.name}/{self.prefix}".rstrip("/")

    def at(self, key: str) -> Dict[str, str]:
        return {"Bucket": self.name, "Key": self.prefix + key}

    @contextmanager
    def doing(self, verb: str, key: str) -> Iterator[None]:
        with translated(self._sentence(verb, key), self.secrets):
            yield

    @contextmanager
    def reading(self, verb: str, key: str) -> Iterator[None]:
        """As `doing`, for what answers with an object, or about it."""
        with translated(self._sentence(verb, key), self.secrets, bool(self.encryption.customer_key)):
            yield

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
            decode_metadata(answer.get("Metadata", {})),
        )


def encode_metadata(metadata: Mapping[str, str] | None) -> Dict[str, str]:
    """As headers carry it: S3 lowers names and takes ASCII values."""
    encoded = {}
    for name, value in (metadata or {}).items():
        if not _METADATA_KEY.fullmatch(name):
            raise VmferryError("invalid_config", f"The metadata name {name!a} is not made of a-z, 0-9 and '-'.")
        encoded[name] = quote(value, safe=" !#$&'()*+,/:;=?@[]{}|~^<>\"")
    return encoded


def decode_metadata(metadata: Mapping[str, str]) -> Dict[str, str]:
    return {name.lower(): unquote(value) for name, value in metadata.items()}
