# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way to an account: what settings cannot be meant, whose credentials are used, and what AWS says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.errors import translated
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.provider import AwsProvider
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.settings import AwsSettings
from rigs.aws import AwsServer

ROLE = "arn:aws:iam::123456789012:role/vmferry"
KEYS = {"access_key": "AKID", "secret_key": "not so open"}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"hostname": "vc"}, "aws has no setting hostname"),
        ({"access_key": "AKID"}, "aws.access_key and secret_key go together"),
        ({"session_token": "t"}, "aws.session_token goes with access_key"),
        ({**KEYS, "profile": "offsite"}, "aws.profile goes without access_key"),
        ({"external_id": "42"}, "aws.external_id goes with role_arn"),
        ({"role_session_name": "nightly"}, "aws.role_session_name goes with role_arn"),
        ({"web_identity_token_file": "/run/token"}, "aws.web_identity_token_file goes with role_arn"),
        ({**KEYS, "role_arn": ROLE, "web_identity_token_file": "/run/token"}, "goes without access_key and profile"),
        ({"endpoint_url": "ec2.example.org"}, "aws.endpoint_url starts with http"),
        ({"endpoint_url": "https://me:open@ec2.example.org"}, "aws.endpoint_url carries no credentials"),
        ({"sts_endpoint_url": "sts.example.org"}, "aws.sts_endpoint_url starts with http"),
        ({"ca_path": "/etc/ssl/lab.pem", "validate_certs": False}, "aws.ca_path goes without validate_certs: false"),
    ],
)
def test_what_cannot_be_meant_is_refused(given: dict[str, Any], named: str) -> None:
    with pytest.raises(VmferryError) as refused:
        AwsSettings.from_options({"region": "eu-central-1", **given})
    assert refused.value.kind == "invalid_config"
    assert named in refused.value.message
    assert refused.value.hint
    assert "open@" not in refused.value.message + refused.value.hint


def test_secrets_are_not_shown_with_the_settings() -> None:
    settings = AwsSettings.from_options({**KEYS, "session_token": "for an hour"})
    assert not [secret for secret in ("not so open", "for an hour") if secret in repr(settings)]


def test_an_authority_that_is_no_file_is_told(aws: AwsServer, settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(VmferryError, match=r"aws\.ca_path") as refused:
        AwsProvider({**settings, "ca_path": str(tmp_path / "none.pem")}).vms()
    assert refused.value.kind == "invalid_config"


def test_a_role_is_assumed_before_the_first_request_and_once(aws: AwsServer, settings: dict[str, Any]) -> None:
    aws.make_instance("assumed")
    provider = AwsProvider({**settings, "role_arn": ROLE, "role_session_name": "nightly"})
    aws.forget_calls()
    assert provider.describe("assumed").name == "assumed"
    assert provider.account == f"aws {aws.account} {aws.region}"
    assert aws.calls()[0] == "sts:AssumeRole"
    assert aws.calls().count("sts:AssumeRole") == 1
    provider.close()


def test_a_role_that_may_not_be_assumed_is_told_as_that(aws: AwsServer, settings: dict[str, Any]) -> None:
    aws.fault("AssumeRole", "refuse", code="AccessDenied", status=403)
    with pytest.raises(VmferryError, match=f"Assuming the role {ROLE} failed") as refused:
        AwsProvider({**settings, "role_arn": ROLE}).vms()
    assert (refused.value.kind, "trust policy" in refused.value.hint) == ("unauthenticated", True)


def test_nobody_answers_at_the_address(
    aws: AwsServer, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rigs.ports import free_port

    port = free_port()
    nobody = {**settings, "endpoint_url": f"http://127.0.0.1:{port}"}
    monkeypatch.setattr("ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.session._ATTEMPTS", 1)
    with pytest.raises(
        VmferryError, match=f"instances failed: no connection could be made to 127.0.0.1:{port}"
    ) as lost:
        AwsProvider(nobody).vms()
    assert (lost.value.kind, lost.value.retryable) == ("network", True)


@pytest.mark.parametrize(
    ("code", "status", "kind", "retryable"),
    [
        ("AuthFailure", 401, "unauthenticated", False),
        ("UnauthorizedOperation", 403, "permission_denied", False),
        ("RequestLimitExceeded", 503, "rate_limited", True),
        ("InsufficientInstanceCapacity", 500, "busy", True),
        ("PendingSnapshotLimitExceeded", 400, "quota", False),
        ("InvalidSnapshot.InUse", 400, "conflict", False),
        ("InvalidVolume.NotFound", 400, "not_found", False),
        ("InvalidParameterValue", 400, "invalid_config", False),
        ("OperationNotPermitted", 400, "conflict", False),
        ("UnsupportedOperation", 400, "unsupported", False),
        ("Unsupported", 400, "unsupported", False),
        ("InternalError", 500, "network", True),
        ("NeverHeardOf", 400, "internal", False),
    ],
)
def test_codes_of_aws_have_a_kind_of_ours(code: str, status: int, kind: str, retryable: bool) -> None:
    answer: Any = {
        "Error": {"Code": code, "Message": "key not so open"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    with pytest.raises(VmferryError, match="Doing it failed") as told, translated("Doing it", ["not so open"]):
        raise ClientError(answer, "DoIt")
    assert (told.value.kind, told.value.retryable) == (kind, retryable)
    assert "not so open" not in told.value.message + told.value.hint
    if kind == "permission_denied":
        assert "DoIt" in told.value.hint
