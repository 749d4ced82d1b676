# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of the control node's credentials for Google Cloud Storage a host is handed, and which it never is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.plugin_utils.credentials import hand_over

URL = "gs://exports/vms"
TOKEN = {"GCP_ACCESS_TOKEN": "for an hour"}


def handed(storage: Any = None, of_task: Any = None, of_controller: Any = None, **arguments: Any) -> Any:
    return hand_over({"url": URL, "storage": storage, **arguments}, of_task or {}, of_controller or {})["storage"]


def test_a_token_is_handed_over() -> None:
    assert handed(of_controller=TOKEN) == {"access_token": "for an hour"}
    assert handed({"user_project": "payer"}, of_controller=TOKEN) == {
        "user_project": "payer",
        "access_token": "for an hour",
    }


def test_a_key_in_a_file_of_the_control_node_is_handed_over_itself(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_text('{"type": "service_account"}')
    variables = {**TOKEN, "GCP_SERVICE_ACCOUNT_FILE": str(path)}
    assert handed(of_controller=variables) == {"service_account_contents": '{"type": "service_account"}'}
    variables["GCP_SERVICE_ACCOUNT_CONTENTS"] = "{}"
    assert handed(of_controller=variables) == {"service_account_contents": "{}"}


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(VmferryError, match=str(tmp_path / "none")) as raised:
        handed(of_controller={"GCP_SERVICE_ACCOUNT_FILE": str(tmp_path / "none")})
    assert raised.value.kind == "invalid_config"


@pytest.mark.parametrize(
    "said", [{"auth_kind": "machineaccount"}, {"access_token": "own"}, {"service_account_file": "/k"}]
)
def test_a_task_that_has_chosen_is_left_alone(said: dict[str, str]) -> None:
    assert handed(said, of_controller=TOKEN) == said


@pytest.mark.parametrize("variable", ["GCP_AUTH_KIND", "GOOGLE_APPLICATION_CREDENTIALS", "GCP_SERVICE_ACCOUNT_FILE"])
def test_a_task_that_has_an_environment_of_its_own_is_left_alone(variable: str) -> None:
    assert handed(of_task={variable: "own"}, of_controller=TOKEN) is None


def test_nothing_is_handed_over_where_the_host_has_its_own_or_to_another_store() -> None:
    assert handed(of_controller=TOKEN, credentials_from="target") is None
    assert handed(of_controller=TOKEN, url="s3://exports") is None
    assert handed(of_controller={"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "B"}) is None


def test_a_control_node_that_must_have_some_and_has_none_is_told() -> None:
    with pytest.raises(VmferryError, match="Google Cloud Storage") as raised:
        handed(credentials_from="controller")
    assert "GCP_SERVICE_ACCOUNT_FILE" in raised.value.hint
