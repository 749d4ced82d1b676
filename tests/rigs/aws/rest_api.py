# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A REST API of AWS as the SDK's own model of it says: what requests may hold, what answers and errors must be.

What is answered and is not in the model is a fault of the rig, and raises `AssertionError`.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

# Of every API, and in no model: https://docs.aws.amazon.com/ebs/latest/APIReference/CommonErrors.html
COMMON_ERRORS = {
    "ThrottlingException": 400,
    "ExpiredTokenException": 403,
    "UnrecognizedClientException": 403,
    "AccessDeniedException": 403,
    "ServiceUnavailable": 503,
}
_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "long": int,
    "boolean": bool,
    "list": list,
    "structure": dict,
    "blob": bytes,
    "timestamp": (int, float),
}


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class ApiError(Exception):
    """`reason`: of the few that the error's shape knows."""

    def __init__(self, code: str, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason


class RestApi:
    """Of a service whose protocol is rest-json."""

    def __init__(self, service: str) -> None:
        import botocore.session

        self.model = botocore.session.get_session().get_service_model(service)
        self._routes = []
        for name in self.model.operation_names:
            operation = self.model.operation_model(name)
            path = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(operation.http["requestUri"]))
            self._routes.append((operation.http["method"], re.compile(f"{path}$"), operation))

    def operation(self, method: str, path: str) -> tuple[Any, dict[str, str]]:
        """Its model, and what the path says. Raises `KeyError`."""
        for verb, pattern, operation in self._routes:
            if verb == method and (found := pattern.match(path)):
                return operation, {name: unquote(value) for name, value in found.groupdict().items()}
        raise KeyError(f"{method} {path}")

    def read(self, operation: Any, path: Mapping[str, str], environ: Mapping[str, Any], body: bytes) -> dict[str, Any]:
        """What was asked, by the names of the model. Raises `ApiError`."""
        shape = operation.input_shape
        query = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
        payload = shape.serialization.get("payload")
        fields = {} if payload else json.loads(body or b"{}")
        asked: dict[str, Any] = {}
        for name, member in shape.members.items():
            key, location = member.serialization.get("name", name), member.serialization.get("location")
            value: Any
            if location == "uri":
                value = path[key]
            elif location == "querystring":
                value = query.pop(key, [None])[0]
            elif location == "header":
                value = environ.get("HTTP_" + key.upper().replace("-", "_"))
            elif name == payload:
                value = body
            else:
                value = fields.pop(key, None)
            if value is not None:
                asked[name] = _checked(name, _converted(value, member), member)
        assert not query, f"{operation.name} knows no {query}"
        assert not fields, f"{operation.name} knows no {fields}"
        for name in shape.required_members:
            if name not in asked:
                raise ApiError("ValidationException", f"{name} is required", "INVALID_PARAMETER_VALUE")
        return asked

    def answer(self, operation: Any, told: Mapping[str, Any]) -> Answer:
        shape = operation.output_shape
        payload = shape.serialization.get("payload")
        headers: dict[str, str] = {}
        fields: dict[str, Any] = {}
        body = b""
        for name, value in told.items():
            if value is None:
                continue
            _check_told(f"{operation.name}: {name}", value, shape.members[name])
            member = shape.members[name]
            key = member.serialization.get("name", name)
            if name == payload:
                body = value
            elif member.serialization.get("location") == "header":
                headers[key] = str(value)
            else:
                fields[key] = value
        if not payload:
            headers["Content-Type"] = "application/json"
            body = json.dumps(fields).encode()
        return Answer(operation.http.get("responseCode", 200), body, headers)

    def error(self, operation: Any, error: ApiError) -> Answer:
        shapes = {shape.name: shape for shape in operation.error_shapes}
        told = {"Message": error.message}
        if error.code in shapes:
            shape = shapes[error.code]
            status = shape.metadata["error"]["httpStatusCode"]
            if error.reason:
                told["Reason"] = error.reason
            for name, value in told.items():
                _check_told(f"{error.code}: {name}", value, shape.members[name])
            missing = [name for name in shape.metadata.get("required", ()) if name not in told]
            assert not missing, f"{error.code} has no {missing}"
        else:
            status = COMMON_ERRORS[error.code]
        headers = {"x-amzn-ErrorType": error.code, "Content-Type": "application/json"}
        return Answer(status, json.dumps(told).encode(), headers)


def _converted(value: Any, shape: Any) -> Any:
    if shape.type_name in ("integer", "long") and isinstance(value, str):
        try:
            return int(value)
        except ValueError as error:
            raise ApiError("ValidationException", f"{value} is no number", "INVALID_PARAMETER_VALUE") from error
    return value


def _checked(name: str, value: Any, shape: Any) -> Any:
    """Raises `ApiError` where it breaks what the model says of it."""
    rules = shape.metadata
    size = value if isinstance(value, int) and not isinstance(value, bool) else None
    if isinstance(value, (str, list)):
        size = len(value)
    broken = (
        not isinstance(value, _TYPES[shape.type_name])
        or (size is not None and not rules.get("min", size) <= size <= rules.get("max", size))
        or ("pattern" in rules and not re.search(str(rules["pattern"]), str(value)))
        or ("enum" in rules and value not in rules["enum"])
    )
    if broken:
        raise ApiError("ValidationException", f"Invalid value for {name}", "INVALID_PARAMETER_VALUE")
    return value


def _check_told(name: str, value: Any, shape: Any) -> None:
    assert isinstance(value, _TYPES[shape.type_name]), f"{name} is {value!r}, not a {shape.type_name}"
    rules = shape.metadata
    if isinstance(value, str):
        assert len(value) <= rules.get("max", len(value)), f"{name} is too long"
        assert re.search(rules.get("pattern", ""), value), f"{name} is {value!r}"
        assert not getattr(shape, "enum", None) or value in shape.enum, f"{name} is never {value!r}"
    elif isinstance(value, list):
        for one in value[:3]:
            _check_told(f"{name}[]", one, shape.member)
    elif isinstance(value, dict):
        for key, one in value.items():
            _check_told(f"{name}.{key}", one, shape.members[key])


def now() -> float:
    """As timestamps are told in JSON: seconds since 1970."""
    return round(time.time(), 3)
