# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The task's storage options, as an S3 store understands them: credentials, endpoint, TLS, encryption at rest."""

from __future__ import annotations

import binascii
from base64 import b64decode
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Dict, Literal, Optional, Sequence, Union

from ..._aws.credentials import AwsCredentials, check_endpoint
from ..._http.clear_text import refuse_in_clear
from ..connection_settings import ConnectionSettings, refused

_ARCHIVED = ("GLACIER", "DEEP_ARCHIVE")  # restored within minutes to days, and only when somebody asks for it


@dataclass(frozen=True)
class Encryption:
    """Server-side encryption. With a customer key every request about the object carries it."""

    kind: Literal["AES256", "aws:kms", "none"] = "none"
    kms_key_id: str = ""
    customer_key: bytes = field(default=b"", repr=False)

    def creating(self) -> Dict[str, Any]:
        if self.customer_key:
            return self.using()
        if self.kind == "none":
            return {}
        key = {"SSEKMSKeyId": self.kms_key_id} if self.kms_key_id else {}
        return {"ServerSideEncryption": self.kind, **key}

    def using(self) -> Dict[str, Any]:
        if not self.customer_key:
            return {}
        return {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": self.customer_key}

    def copying(self) -> Dict[str, Any]:
        """What it takes to read the source of a copy."""
        return {f"CopySource{name}": value for name, value in self.using().items()}


@dataclass(frozen=True)
class S3Settings(ConnectionSettings):
    """The storage options an S3 store looks at. Left out, a credential comes from boto3's own chain."""

    endpoint_url: Optional[str] = None
    region: Optional[str] = None
    profile: Optional[str] = None
    access_key: Optional[str] = field(default=None, repr=False)
    secret_key: Optional[str] = field(default=None, repr=False)
    session_token: Optional[str] = field(default=None, repr=False)
    addressing_style: str = "auto"
    payload_signing: Optional[bool] = None
    sse: str = "none"
    sse_kms_key_id: Optional[str] = None
    sse_customer_key: Optional[str] = field(default=None, repr=False)
    role_arn: Optional[str] = None
    role_session_name: Optional[str] = None
    external_id: Optional[str] = None
    web_identity_token_file: Optional[str] = None
    sts_endpoint_url: Optional[str] = None
    anonymous: bool = False
    storage_class: str = ""
    request_payer: Optional[str] = None
    use_accelerate_endpoint: bool = False
    object_lock_mode: str = ""
    object_lock_retain_until: str = ""
    object_lock_retention: Optional[float] = None  # seconds
    object_lock_legal_hold: bool = False

    def _check(self) -> None:
        self._check_credentials()
        self._check_requests()
        self._check_lock()

    def _check_requests(self) -> None:
        if self.addressing_style not in ("auto", "path", "virtual"):
            raise refused("addressing_style", "is auto, path or virtual", "Leave it out for auto.")
        if self.sse not in ("none", "AES256", "aws:kms"):
            raise refused("sse", "is none, AES256 or aws:kms", "Leave it out for none.")
        if self.sse_kms_key_id and self.sse != "aws:kms":
            raise refused("sse_kms_key_id", "goes with sse aws:kms only", "Add sse, or leave the key out.")
        if self.sse_customer_key and self.sse != "none":
            raise refused("sse_customer_key", "goes without sse", "Leave one of the two out.")
        if self.storage_class in _ARCHIVED:
            hint = "Use GLACIER_IR, or let a lifecycle rule of the bucket move old exports there."
            raise refused("storage_class", f"is none that cannot be read at once, as {self.storage_class}", hint)
        if self.request_payer not in (None, "requester"):
            raise refused("request_payer", "is requester", "Leave it out where the owner of the bucket pays.")
        if self.use_accelerate_endpoint and (self.endpoint_url or self.addressing_style == "path"):
            hint = "Leave one of them out. AWS_ENDPOINT_URL in the environment counts as well."
            raise refused("use_accelerate_endpoint", "goes without endpoint_url and addressing_style path", hint)
        if self.sse_customer_key:  # which AWS refuses, once it is told
            refuse_in_clear(self.endpoint_url or "", "The sse_customer_key")
        check_endpoint("endpoint_url", self.endpoint_url, "https://s3.example.org", refused)

    def _check_lock(self) -> None:
        if self.object_lock_mode not in ("", "GOVERNANCE", "COMPLIANCE"):
            raise refused("object_lock_mode", "is GOVERNANCE or COMPLIANCE", "Leave it out to lock nothing.")
        given = [self.object_lock_retain_until, self.object_lock_retention]
        if self.object_lock_mode and given.count("") + given.count(None) != 1:
            hint = "Say until when with exactly one of them."
            raise refused("object_lock_mode", "goes with object_lock_retain_until or object_lock_retention", hint)
        if any(given) and not self.object_lock_mode:
            name = "object_lock_retain_until" if self.object_lock_retain_until else "object_lock_retention"
            raise refused(name, "goes with object_lock_mode only", "Add object_lock_mode, for example GOVERNANCE.")

    def _check_credentials(self) -> None:
        for name in ("access_key", "profile", "session_token", "role_arn", "web_identity_token_file"):
            if self.anonymous and getattr(self, name):
                raise refused("anonymous", f"goes without {name}", "Leave one of the two out.")
        self.credentials.check(refused)

    @property
    def credentials(self) -> AwsCredentials:
        return AwsCredentials(**{entry.name: getattr(self, entry.name) for entry in fields(AwsCredentials)})

    @property
    def verify_by_botocore(self) -> Union[str, bool, None]:
        """None, and not True: a profile may name its authorities."""
        return None if self.verify is True else self.verify

    @property
    def secrets(self) -> Sequence[str]:
        return [*self.credentials.secrets, *([self.sse_customer_key] if self.sse_customer_key else [])]

    @property
    def retain_until(self) -> Optional[datetime]:
        text = self.object_lock_retain_until
        if not text:
            return None
        try:
            time = datetime.fromisoformat(f"{text[:-1]}+00:00" if text.endswith("Z") else text)
        except ValueError:
            time = datetime.min
        if time.tzinfo is None:
            hint = "Write for example 2027-01-01T00:00:00Z."
            raise refused("object_lock_retain_until", "is a time with its zone", hint)
        return time

    def encryption(self) -> Encryption:
        key = b""
        if self.sse_customer_key:
            try:
                key = b64decode(self.sse_customer_key, validate=True)
            except (binascii.Error, ValueError):
                key = b""
            if len(key) != 32:
                raise refused("sse_customer_key", "is the base64 of 32 bytes", "Make one with: openssl rand -base64 32")
        return Encryption(self.sse, self.sse_kms_key_id or "", key)  # type: ignore[arg-type]
