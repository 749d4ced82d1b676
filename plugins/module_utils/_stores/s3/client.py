# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One S3 client from the task's storage options."""

from __future__ import annotations

from typing import Any, Dict

from ..._errors import VmferryError
from ..hosts import AllowedHosts
from ..memory_body import MemoryBody
from .conditions import send_unknown_conditions
from .errors import translated
from .payer import say_who_pays
from .roles import assume_role
from .settings import S3Settings

DEFAULT_REGION = "us-east-1"  # what servers other than AWS expect in a signature
_OTHER_CONNECTIONS = 2  # beside the parts: the manifest, a listing


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
        region = session.region_name or DEFAULT_REGION
        if settings.role_arn:
            session = assume_role(session, region, settings, known_to(Config, _patience(settings)))
        client = session.client(
            "s3",
            region_name=region,
            endpoint_url=settings.endpoint_url,
            verify=settings.verify_by_botocore,
            config=Config(**known_to(Config, _config(settings))),
        )
    _protect(client, settings)
    if settings.request_payer:
        say_who_pays(client)
    send_to_allowed_hosts(client, AllowedHosts.of(settings.allowed_hosts))
    client.meta.events.register("before-send.s3", _send_in_large_slices)
    send_unknown_conditions(client)
    return client


def send_to_allowed_hosts(client: Any, allowed: AllowedHosts) -> None:
    """Asked before each attempt is sent: botocore goes to another host where a bucket is in another region."""
    if allowed.limited:
        client.meta.events.register("before-send.s3", lambda request, **_unused: allowed.check(request.url))


def _send_in_large_slices(request: Any, **_unused: Any) -> None:
    if isinstance(request.body, MemoryBody):
        request.body.send()


def _protect(client: Any, settings: S3Settings) -> None:
    over_tls = client.meta.endpoint_url.startswith("https://")  # known only now: a profile may name its endpoint
    if over_tls:
        settings.check_ca_path()
    # Over TLS the bytes are protected already. Over plain HTTP a signed payload is what keeps them from being
    # changed on the way; it costs one SHA-256 of every byte sent.
    sign = not over_tls if settings.payload_signing is None else settings.payload_signing
    client.meta.config.s3["payload_signing_enabled"] = sign


def _config(settings: S3Settings) -> Dict[str, Any]:
    from botocore import UNSIGNED

    return {
        **_patience(settings),
        **({"signature_version": UNSIGNED} if settings.anonymous else {}),
        "s3": {
            "addressing_style": settings.addressing_style,
            "use_accelerate_endpoint": settings.use_accelerate_endpoint,
        },
        # botocore's default wraps each body in aws-chunked framing and a CRC of its own; ours travels in a header.
        "request_checksum_calculation": "when_required",
        # Some servers answer a range with the whole object's checksum, which botocore would then refuse.
        "response_checksum_validation": "when_required",
        "max_pool_connections": settings.parallel + _OTHER_CONNECTIONS,
    }


def _patience(settings: S3Settings) -> Dict[str, Any]:
    return {
        "retries": {"mode": "standard", "total_max_attempts": 1},  # RetryingStore repeats, within the export's limits
        "connect_timeout": settings.connect_timeout,
        "read_timeout": settings.read_timeout,
        "tcp_keepalive": True,
        "user_agent_extra": "vmferry",
    }


def known_to(config: Any, wanted: Dict[str, Any]) -> Dict[str, Any]:
    """botocore before 1.36 has no checksum settings, and adds none of the checksums that they turn off."""
    return {name: value for name, value in wanted.items() if name in config.OPTION_DEFAULTS}
