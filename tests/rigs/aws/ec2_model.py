# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of EC2 and what is answered, checked against the SDK's own model of it."""

from __future__ import annotations

from typing import Any

from botocore.session import get_session
from botocore.validate import ParamValidator
from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses import EC2Response


def asked_of(response: EC2Response, operation: str) -> dict[str, Any]:
    shape = _operation(operation).input_shape
    asked = dict(response.params)
    report = ParamValidator().validate(asked, shape)
    if report.has_errors():
        raise EC2ClientError("InvalidParameterValue", report.generate_report())
    for name, value in asked.items():
        allowed = getattr(shape.members[name], "enum", None)
        if allowed and value not in allowed:
            raise EC2ClientError("InvalidParameterValue", f"{value} is no {name}")
    return asked


def answer_to(operation: str, told: dict[str, Any]) -> ActionResult:
    report = ParamValidator().validate(told, _operation(operation).output_shape)
    assert not report.has_errors(), report.generate_report()
    return ActionResult(told)


def _operation(name: str) -> Any:
    return get_session().get_service_model("ec2").operation_model(name)
