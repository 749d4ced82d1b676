# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Roles: whom they are asked for as, and that a long export does not outlive their credentials.

The S3 server is the sloppy one, which takes any signature; the token service records what it is asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from rigs.fault_proxy import FaultProxy
from rigs.security_tokens import SecurityTokens, security_tokens

from .s3_wire import EVERY_KIND, access_key_of, exercise, sent_with
from .store_rigs import SloppyS3Rig

ROLE = "arn:aws:iam::123456789012:role/exports"
NO_KEYS: dict[str, Any] = {"access_key": None, "secret_key": None}
_OF_THE_SDK = ("PROFILE", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "ROLE_ARN", "WEB_IDENTITY_TOKEN_FILE")


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in _OF_THE_SDK:
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.fixture
def tokens() -> Iterator[SecurityTokens]:
    with security_tokens() as service:
        yield service


@pytest.fixture
def proxy(sloppy_s3_rig: SloppyS3Rig) -> FaultProxy:
    sloppy_s3_rig.proxy.reset()
    return sloppy_s3_rig.proxy


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("of-the-identity-provider\n")
    return path


def opened(rig: SloppyS3Rig, tokens: SecurityTokens, **settings: Any) -> Store:
    given = {"role_arn": ROLE, "sts_endpoint_url": tokens.endpoint_url, **settings}
    return rig.open(endpoint_url=rig.proxy.endpoint_url, **given)


def test_every_request_is_the_roles_and_the_role_is_asked_for_with_the_keys(
    sloppy_s3_rig: SloppyS3Rig, proxy: FaultProxy, tokens: SecurityTokens
) -> None:
    exercise(opened(sloppy_s3_rig, tokens, role_session_name="nightly", external_id="42"))
    assert len(tokens.requests) == 1
    asked = tokens.requests[0]
    assert [asked.get(name) for name in ("Action", "RoleArn", "RoleSessionName", "ExternalId")] == [
        "AssumeRole",
        ROLE,
        "nightly",
        "42",
    ]
    assert sloppy_s3_rig.server.access_key in asked["authorization"]
    assert {access_key_of(request) for request in proxy.requests} == {"ASIAROLE1"}
    assert sent_with(proxy.requests, "x-amz-security-token") == {kind: {"token-1"} for kind in EVERY_KIND}


def test_what_is_left_out_is_not_asked_for(
    sloppy_s3_rig: SloppyS3Rig, proxy: FaultProxy, tokens: SecurityTokens
) -> None:
    opened(sloppy_s3_rig, tokens).put("vm/a", b"x")
    assert (tokens.requests[0]["RoleSessionName"], "ExternalId" in tokens.requests[0]) == ("vmferry", False)


def test_credentials_are_renewed_while_an_export_goes_on(
    sloppy_s3_rig: SloppyS3Rig, proxy: FaultProxy, tokens: SecurityTokens
) -> None:
    tokens.lifetime = 60.0  # the SDK renews them ten minutes before their end
    exercise(opened(sloppy_s3_rig, tokens))
    keys = [access_key_of(request) for request in proxy.requests]
    assert keys == [f"ASIAROLE{number}" for number in range(1, len(keys) + 1)]


def test_a_web_identity_needs_no_keys_and_its_token_is_read_again(
    sloppy_s3_rig: SloppyS3Rig, proxy: FaultProxy, tokens: SecurityTokens, token_file: Path
) -> None:
    tokens.lifetime = 60.0
    store = opened(sloppy_s3_rig, tokens, web_identity_token_file=str(token_file), **NO_KEYS)
    store.put_volatile("vm/a", b"x")
    token_file.write_text("renewed-meanwhile")
    store.put_volatile("vm/a", b"x")
    seen = [(asked["Action"], asked["WebIdentityToken"], asked["authorization"]) for asked in tokens.requests]
    assert seen == [
        ("AssumeRoleWithWebIdentity", "of-the-identity-provider", ""),
        ("AssumeRoleWithWebIdentity", "renewed-meanwhile", ""),
    ]
    assert [access_key_of(request) for request in proxy.requests] == ["ASIAROLE1", "ASIAROLE2"]


def test_a_web_identity_in_the_environment_is_found_by_the_sdk(
    sloppy_s3_rig: SloppyS3Rig,
    proxy: FaultProxy,
    tokens: SecurityTokens,
    token_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token_file))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", tokens.endpoint_url)
    sloppy_s3_rig.open(endpoint_url=proxy.endpoint_url, **NO_KEYS).put("vm/a", b"x")
    assert tokens.requests[0]["RoleArn"] == ROLE
    assert {access_key_of(request) for request in proxy.requests} == {"ASIAROLE1"}


def test_a_refused_role_is_told_as_such_and_no_token_with_it(
    sloppy_s3_rig: SloppyS3Rig, proxy: FaultProxy, tokens: SecurityTokens, token_file: Path
) -> None:
    tokens.refusal = ("InvalidIdentityToken", "No provider for of-the-identity-provider is known")
    store = opened(sloppy_s3_rig, tokens, web_identity_token_file=str(token_file), **NO_KEYS)
    with pytest.raises(VmferryError) as raised:
        store.put("vm/a", b"x")
    error = raised.value
    assert (error.kind, error.retryable) == ("unauthenticated", False)
    assert ROLE in error.message
    assert "InvalidIdentityToken" in error.message
    assert "trust policy" in error.hint
    assert "of-the-identity-provider" not in f"{error!r} {error.as_result()}"
    assert proxy.requests == []


def test_a_token_file_that_is_not_there_is_named(sloppy_s3_rig: SloppyS3Rig, tokens: SecurityTokens) -> None:
    store = opened(sloppy_s3_rig, tokens, web_identity_token_file="/nowhere/token", **NO_KEYS)
    with pytest.raises(VmferryError, match="/nowhere/token") as raised:
        store.put("vm/a", b"x")
    assert (raised.value.kind, raised.value.retryable) == ("unauthenticated", False)
    assert tokens.requests == []


def test_a_token_service_that_is_busy_is_asked_again_later(
    sloppy_s3_rig: SloppyS3Rig, proxy: FaultProxy, tokens: SecurityTokens
) -> None:
    tokens.refusal = ("Throttling", "Rate exceeded")
    with pytest.raises(VmferryError) as raised:
        opened(sloppy_s3_rig, tokens).put("vm/a", b"x")
    assert (raised.value.kind, raised.value.retryable) == ("rate_limited", True)


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        ({"role_arn": None, "external_id": "42"}, "external_id"),
        ({"role_arn": None, "role_session_name": "nightly"}, "role_session_name"),
        ({"role_arn": None, "web_identity_token_file": "/run/token", **NO_KEYS}, "web_identity_token_file"),
        ({"web_identity_token_file": "/run/token"}, "web_identity_token_file"),
        ({"web_identity_token_file": "/run/token", "external_id": "42", **NO_KEYS}, "external_id"),
        ({"sts_endpoint_url": "sts.example.org"}, "sts_endpoint_url"),
    ],
)
def test_what_does_not_go_together_is_refused(
    sloppy_s3_rig: SloppyS3Rig, tokens: SecurityTokens, settings: dict[str, Any], option: str
) -> None:
    with pytest.raises(VmferryError) as raised:
        opened(sloppy_s3_rig, tokens, **settings)
    assert raised.value.kind == "invalid_config"
    assert f"option {option} " in raised.value.message
