# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose requests they are, as the server sees it: keys, tokens, profiles, roles and the region they are signed for."""

from __future__ import annotations

import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from rigs.black_hole import black_hole
from rigs.fault_proxy import FaultProxy
from rigs.instance_metadata import instance_metadata

from .s3_wire import EVERY_KIND, access_key_of, exercise, region_of, sent_with
from .store_rigs import S3Rig, SloppyS3Rig

TOKEN = "the-session-token"
NO_KEYS: dict[str, Any] = {"access_key": None, "secret_key": None}


@pytest.fixture
def proxy(s3_proxy: FaultProxy) -> FaultProxy:
    s3_proxy.reset()
    return s3_proxy


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


def test_the_region_is_the_one_requests_are_signed_for(s3: S3Rig, proxy: FaultProxy) -> None:
    exercise(s3.open(endpoint_url=proxy.endpoint_url, region="eu-central-2"))
    assert {region_of(request) for request in proxy.requests} == {"eu-central-2"}


def test_the_session_token_goes_with_every_request(sloppy_s3_rig: SloppyS3Rig) -> None:
    # SeaweedFS takes the tokens of its own STS only.
    proxy = sloppy_s3_rig.proxy
    proxy.reset()
    exercise(sloppy_s3_rig.open(endpoint_url=proxy.endpoint_url, session_token=TOKEN))
    assert sent_with(proxy.requests, "x-amz-security-token") == {kind: {TOKEN} for kind in EVERY_KIND}


def test_the_profile_that_is_named_is_used_whatever_the_environment_has(
    s3: S3Rig, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "credentials").write_text(
        f"""[default]
aws_access_key_id = AKIDDEFAULT
aws_secret_access_key = wrong
[exports]
aws_access_key_id = {s3.server.access_key}
aws_secret_access_key = {s3.server.secret_key}
"""
    )
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "wrong")
    monkeypatch.setenv("AWS_PROFILE", "default")
    exercise(s3.open(endpoint_url=proxy.endpoint_url, profile="exports", **NO_KEYS))
    assert {access_key_of(request) for request in proxy.requests} == {s3.server.access_key}
    assert sent_with(proxy.requests, "x-amz-security-token") == {kind: {""} for kind in EVERY_KIND}


def test_a_profile_brings_its_region_along(s3: S3Rig, proxy: FaultProxy, tmp_path: Path) -> None:
    keys = f"aws_access_key_id = {s3.server.access_key}\naws_secret_access_key = {s3.server.secret_key}\n"
    (tmp_path / "config").write_text(f"[profile exports]\nregion = eu-central-2\n{keys}")
    s3.open(endpoint_url=proxy.endpoint_url, profile="exports", region=None, **NO_KEYS).put("vm/a", b"x")
    assert {region_of(request) for request in proxy.requests} == {"eu-central-2"}


def test_the_payload_is_signed_also_when_the_profile_brings_a_plain_endpoint(
    s3: S3Rig, proxy: FaultProxy, tmp_path: Path
) -> None:
    keys = f"aws_access_key_id = {s3.server.access_key}\naws_secret_access_key = {s3.server.secret_key}\n"
    (tmp_path / "config").write_text(f"[profile exports]\nendpoint_url = {proxy.endpoint_url}\n{keys}")
    s3.open(endpoint_url=None, profile="exports", **NO_KEYS).put("vm/a", b"x")
    assert sent_with(proxy.requests, "x-amz-content-sha256")["put"] == {sha256(b"x").hexdigest()}


def test_a_profile_that_does_not_exist_is_named(s3: S3Rig) -> None:
    with pytest.raises(VmferryError) as raised:
        s3.open(profile="exprots", **NO_KEYS)
    assert raised.value.kind == "invalid_config"
    assert "exprots" in raised.value.message


def test_the_role_of_the_machine_is_used_when_nothing_else_is_given(
    sloppy_s3_rig: SloppyS3Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = sloppy_s3_rig.proxy
    proxy.reset()
    with instance_metadata("AKIDROLE", "the-secret-of-the-role", TOKEN) as service:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.endpoint_url)
        exercise(sloppy_s3_rig.open(endpoint_url=proxy.endpoint_url, **NO_KEYS))
        assert service.requests[0].startswith("PUT ")
    assert {access_key_of(request) for request in proxy.requests} == {"AKIDROLE"}
    assert sent_with(proxy.requests, "x-amz-security-token") == {kind: {TOKEN} for kind in EVERY_KIND}


def test_the_role_of_the_machine_is_not_asked_for_when_keys_are_given(
    s3: S3Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with instance_metadata("AKIDROLE", "the-secret-of-the-role", TOKEN) as service:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.endpoint_url)
        s3.open().put("vm/a", b"x")
        assert service.requests == []


def test_without_any_credentials_it_fails_within_seconds(s3: S3Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    started = time.monotonic()
    with black_hole() as port:  # as where no machine has a metadata service
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{port}")
        with pytest.raises(VmferryError) as raised:
            s3.open(**NO_KEYS).put("vm/a", b"x")
    assert time.monotonic() - started < 10
    assert (raised.value.kind, raised.value.retryable) == ("unauthenticated", False)
    assert "no credentials were found" in raised.value.message
    assert "access_key" in raised.value.hint


def test_the_role_of_the_machine_can_be_turned_off(s3: S3Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    with instance_metadata("AKIDROLE", "the-secret-of-the-role", TOKEN) as service:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.endpoint_url)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with pytest.raises(VmferryError, match="no credentials were found"):
            s3.open(**NO_KEYS).put("vm/a", b"x")
        assert service.requests == []


def test_a_session_token_without_its_keys_is_refused(s3: S3Rig) -> None:
    with pytest.raises(VmferryError) as raised:
        s3.open(session_token=TOKEN, **NO_KEYS)
    assert raised.value.kind == "invalid_config"
    assert "session_token" in raised.value.message
