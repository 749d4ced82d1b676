# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One S3 client from the task's storage options: credentials, endpoint, TLS, encryption at rest."""

from __future__ import annotations

import binascii
from base64 import b64decode
from dataclasses import dataclass, field, fields
from typing import Any, Dict, Literal, Mapping, Optional, Sequence

from .._errors import VmferryError
from .s3_body import send_in_large_slices
from .s3_certificates import check_authorities
from .s3_conditions import send_unknown_conditions
from .s3_errors import translated

CONNECT_TIMEOUT = 10.0  # seconds
READ_TIMEOUT = 60.0  # seconds without a byte
DEFAULT_REGION = "us-east-1"  # what servers other than AWS expect in a signature
_OTHER_CONNECTIONS = 2  # beside the parts: the manifest, a listing


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


@dataclass(frozen=True)
class S3Settings:
    """The storage options an S3 store looks at. Left out, a credential comes from boto3's own chain."""

    endpoint_url: Optional[str] = None
    region: Optional[str] = None
    profile: Optional[str] = None
    access_key: Optional[str] = field(default=None, repr=False)
    secret_key: Optional[str] = field(default=None, repr=False)
    session_token: Optional[str] = field(default=None, repr=False)
    addressing_style: str = "auto"
    validate_certs: bool = True
    ca_path: Optional[str] = None
    connect_timeout: float = CONNECT_TIMEOUT
    read_timeout: float = READ_TIMEOUT
    payload_signing: Optional[bool] = None
    parallel: int = 4
    sse: str = "none"
    sse_kms_key_id: Optional[str] = None
    sse_customer_key: Optional[str] = field(default=None, repr=False)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> S3Settings:
        known = {entry.name for entry in fields(cls)}
        settings = cls(**{name: value for name, value in options.items() if name in known and value is not None})
        settings._check()
        return settings

    def _check(self) -> None:
        if self.addressing_style not in ("auto", "path", "virtual"):
            raise _refused("addressing_style", "is auto, path or virtual", "Leave it out for auto.")
        if self.sse not in ("none", "AES256", "aws:kms"):
            raise _refused("sse", "is none, AES256 or aws:kms", "Leave it out for none.")
        if self.sse_kms_key_id and self.sse != "aws:kms":
            raise _refused("sse_kms_key_id", "goes with sse aws:kms only", "Add sse, or leave the key out.")
        if self.sse_customer_key and self.sse != "none":
            raise _refused("sse_customer_key", "goes without sse", "Leave one of the two out.")
        if bool(self.access_key) != bool(self.secret_key):
            raise _refused("access_key", "and secret_key go together", "Give both, or none to have the environment's.")
        if self.session_token and not self.access_key:
            raise _refused(
                "session_token", "goes with access_key and secret_key only", "Give all three, or leave it out."
            )
        if self.endpoint_url and not self.endpoint_url.startswith(("http://", "https://")):
            raise _refused(
                "endpoint_url", "starts with http:// or https://", "Write for example https://s3.example.org."
            )
        if self.endpoint_url and "@" in self.endpoint_url:
            raise _refused("endpoint_url", "carries no credentials", "Put them into access_key and secret_key.")
        if self.profile and self.access_key:
            raise _refused("profile", "goes without access_key", "Leave one of the two out.")

    @property
    def secrets(self) -> Sequence[str]:
        given = (self.access_key, self.secret_key, self.session_token, self.sse_customer_key)
        return [secret for secret in given if secret]

    def encryption(self) -> Encryption:
        key = b""
        if self.sse_customer_key:
            try:
                key = b64decode(self.sse_customer_key, validate=True)
            except (binascii.Error, ValueError):
                key = b""
            if len(key) != 32:
                raise _refused(
                    "sse_customer_key", "is the base64 of 32 bytes", "Make one with: openssl rand -base64 32"
                )
        return Encryption(self.sse, self.sse_kms_key_id or "", key)  # type: ignore[arg-type]


def connect(settings: S3Settings) -> Any:
    """A boto3 S3 client: thread-safe, to be shared by everything this process does with the store."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise VmferryError(
            "unsupported", "An s3:// storage URL needs the Python package boto3.", "Install boto3 where the task runs."
        ) from error

    with translated("Preparing the S3 client", settings.secrets):
        session = boto3.Session(
            aws_access_key_id=settings.access_key,
            aws_secret_access_key=settings.secret_key,
            aws_session_token=settings.session_token,
            profile_name=settings.profile,
            region_name=settings.region,
        )
        client = session.client(
            "s3",
            region_name=session.region_name or DEFAULT_REGION,
            endpoint_url=settings.endpoint_url,
            # None, and not True: a profile may name its authorities.
            verify=(settings.ca_path or None) if settings.validate_certs else False,
            config=Config(**known_to(Config, _config(settings))),
        )
    _protect(client, settings)
    send_in_large_slices(client)
    send_unknown_conditions(client)
    return client


def _protect(client: Any, settings: S3Settings) -> None:
    over_tls = client.meta.endpoint_url.startswith("https://")  # known only now: a profile may name its endpoint
    if over_tls and settings.validate_certs and settings.ca_path:
        check_authorities(settings.ca_path)
    # Over TLS the bytes are protected already. Over plain HTTP a signed payload is what keeps them from being
    # changed on the way; it costs one SHA-256 of every byte sent.
    sign = not over_tls if settings.payload_signing is None else settings.payload_signing
    client.meta.config.s3["payload_signing_enabled"] = sign


def _config(settings: S3Settings) -> Dict[str, Any]:
    return {
        "s3": {"addressing_style": settings.addressing_style},
        # botocore's default wraps each body in aws-chunked framing and a CRC of its own; ours travels in a header.
        "request_checksum_calculation": "when_required",
        # Some servers answer a range with the whole object's checksum, which botocore would then refuse.
        "response_checksum_validation": "when_required",
        "retries": {"mode": "standard", "total_max_attempts": 1},  # RetryingStore repeats, within the export's limits
        "max_pool_connections": settings.parallel + _OTHER_CONNECTIONS,
        "connect_timeout": settings.connect_timeout,
        "read_timeout": settings.read_timeout,
        "tcp_keepalive": True,
        "user_agent_extra": "vmferry",
    }


def known_to(config: Any, wanted: Dict[str, Any]) -> Dict[str, Any]:
    """botocore before 1.36 has no checksum settings, and adds none of the checksums that they turn off."""
    return {name: value for name, value in wanted.items() if name in config.OPTION_DEFAULTS}


def _refused(option: str, rule: str, hint: str) -> VmferryError:
    return VmferryError("invalid_config", f"The storage option {option} {rule}.", hint)
