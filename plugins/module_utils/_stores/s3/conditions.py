# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Conditional writes through a botocore that is older than they are.

S3 has them since the end of 2024, botocore 1.35 and later as parameters. To HTTP they are headers as old as RFC 7232,
and signed like any other header.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping

_HEADERS = {"IfMatch": "If-Match", "IfNoneMatch": "If-None-Match"}
_OPERATIONS = ("PutObject", "CompleteMultipartUpload", "DeleteObject")
_KEPT = "vmferry_conditions"  # in the request's context, from the call to the request made of it


def send_unknown_conditions(client: Any) -> None:
    """Have this client take IfMatch and IfNoneMatch where its botocore does not know them."""
    for name in _OPERATIONS:
        known = client.meta.service_model.operation_model(name).input_shape.members
        if not set(_HEADERS) <= set(known):
            client.meta.events.register(f"provide-client-params.s3.{name}", _take)
            client.meta.events.register(f"before-call.s3.{name}", _send)


def _take(params: Mapping[str, Any], model: Any, context: Dict[str, Any], **_unused: Any) -> Dict[str, Any]:
    known = model.input_shape.members
    context[_KEPT] = {header: params[name] for name, header in _HEADERS.items() if name in params and name not in known}
    return {name: value for name, value in params.items() if name not in _HEADERS or name in known}


def _send(params: Dict[str, Any], context: Dict[str, Any], **_unused: Any) -> None:
    params["headers"].update(context.pop(_KEPT, {}))
