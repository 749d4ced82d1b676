# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Distributions ship a botocore that knows neither conditional writes nor the settings of its later checksums."""

from __future__ import annotations

from secrets import token_hex
from typing import Any, ClassVar

import pytest
from botocore.config import Config

from ansible_collections.vmferry.migrate.plugins.module_utils._aws.client_config import known_to
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.s3 import client as s3_client
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.s3.conditions import send_unknown_conditions

from .store_rigs import S3Rig

SINCE_1_36 = ("request_checksum_calculation", "response_checksum_validation")


def forget_conditions(client: Any) -> None:
    """As if this botocore were older than they are."""
    for name in ("PutObject", "CompleteMultipartUpload", "DeleteObject"):
        members = client.meta.service_model.operation_model(name).input_shape.members
        for condition in ("IfMatch", "IfNoneMatch"):
            members.pop(condition, None)
    send_unknown_conditions(client)


class OldConfig:
    OPTION_DEFAULTS: ClassVar[dict[str, Any]] = {
        name: value for name, value in Config.OPTION_DEFAULTS.items() if name not in SINCE_1_36
    }


def test_settings_it_does_not_know_are_left_out() -> None:
    settings = dict.fromkeys((*SINCE_1_36, "retries"), "wanted")
    assert known_to(OldConfig, settings) == {"retries": "wanted"}
    assert known_to(Config, settings) == settings


def test_conditions_reach_the_server_all_the_same(s3: S3Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_client, "send_unknown_conditions", forget_conditions)
    prefix = token_hex(4)
    store = s3.open()  # a client of its own
    found = store.probe(f"{prefix}/probe")
    assert found.conditional_put
    assert found.conditional_replace
    first = store.put(f"{prefix}/manifest.json", b"first", if_absent=True)
    with pytest.raises(VmferryError) as refused:
        store.put(f"{prefix}/manifest.json", b"second", if_absent=True)
    assert refused.value.kind == "conflict"
    store.put(f"{prefix}/manifest.json", b"third", if_match=first.etag)
    assert store.get(f"{prefix}/manifest.json") == b"third"
