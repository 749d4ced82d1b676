# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose requests they are, as the server sees it: keys, tokens, profiles, roles and the region they are signed for."""

from __future__ import annotations

from pathlib import Path

import pytest

from rigs.fault_proxy import FaultProxy

from .s3_wire import EVERY_KIND, exercise, region_of, sent_with
from .store_rigs import S3Rig, SloppyS3Rig

TOKEN = "the-session-token"


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
