# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an HTTP store is opened with, and what of the environment is none of its business."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.dav_options import speaks_http
from ansible_collections.vmferry.migrate.tests.unit.plugins.modules.module_run import ModuleRun

URL = "https://dav.example.org/vms"


def settings_of(modules: ModuleRun, url: str, **storage: Any) -> dict[str, Any]:
    found: dict[str, Any] = modules.request("vm_export", {"url": url, "storage": storage}).store.settings
    return found


@pytest.mark.parametrize(
    ("url", "storage", "trusted"),
    [
        (URL, {}, None),
        (URL, {"ca_path": "/etc/ssl/own.pem"}, "/etc/ssl/own.pem"),
        (URL, {"type": "s3"}, "/etc/ssl/aws.pem"),
        ("s3://backups/vms", {}, "/etc/ssl/aws.pem"),
    ],
)
def test_authorities_that_the_environment_names_for_aws_are_for_s3_alone(
    modules: ModuleRun, monkeypatch: pytest.MonkeyPatch, url: str, storage: dict[str, Any], trusted: str | None
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/etc/ssl/aws.pem")
    assert settings_of(modules, url, **storage).get("ca_path") == trusted


@pytest.mark.parametrize(
    ("url", "type_", "does"),
    [
        (URL, None, True),
        (URL, "auto", True),
        (URL, "http", True),
        (URL, "s3", False),
        (URL, "azure", False),
        ("https://account.blob.core.windows.net/vms", "auto", False),
        ("https://account.blob.core.windows.net/vms", "http", True),
        ("s3://backups/vms", None, False),
        ("/srv/exports", None, False),
    ],
)
def test_who_is_asked_by_plain_http(url: str, type_: str | None, does: bool) -> None:
    assert speaks_http(url, {"type": type_}) is does
