# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One S3 client from the task's storage options."""

from __future__ import annotations

from typing import Any, Dict

from ..._aws.client_config import known_to, patience
from ..._aws.session import open_session
from ..hosts import AllowedHosts
from ..memory_body import MemoryBody
from .conditions import send_unknown_conditions
from .errors import translated
from .payer import say_who_pays
from .settings import S3Settings

DEFAULT_REGION = "us-east-1"  # what servers other than AWS expect in a signature
_OTHER_CONNECTIONS = 2  # beside the parts: the manifest, a listing


def connect(settings: S3Settings) -> Any:
    """A boto3 S3 client: thread-safe, to be shared by everything this process does with the store."""
    session, region = open_session(
        settings.credentials,
        settings.region,
        settings.verify_by_botocore,
        _patience(settings),
        translated,
        "An s3:// storage URL",
    )
    from botocore.config import Config

    with translated("Preparing the S3 client", settings.secrets):
        client = session.client(
            "s3",
            region_name=region or DEFAULT_REGION,
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
        **patience(settings.connect_timeout, settings.read_timeout),
        "retries": {"mode": "standard", "total_max_attempts": 1},  # RetryingStore repeats, within the export's limits
    }
