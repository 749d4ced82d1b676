# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All of the control node's credentials are handed over, or none."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.plugin_utils.credentials import hand_over

KEYS = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "secret"}
WHOLE = {**KEYS, "AWS_SESSION_TOKEN": "token", "AWS_DEFAULT_REGION": "eu-1", "AWS_ENDPOINT_URL": "https://s3"}
HANDED = {
    "access_key": "AKID",
    "secret_key": "secret",
    "session_token": "token",
    "region": "eu-1",
    "endpoint_url": "https://s3",
}


def handed(storage: Any = None, of_task: dict[str, Any] | None = None, **options: Any) -> Any:
    given = {"url": "s3://exports", "storage": storage, **options}
    return hand_over(given, of_task or {}, WHOLE)["storage"]


def test_keys_and_what_belongs_to_them_are_handed_over() -> None:
    assert handed() == HANDED


def test_what_the_task_says_of_the_store_stays() -> None:
    assert handed({"region": "eu-2", "ca_path": "/ca"}) == {**HANDED, "region": "eu-2", "ca_path": "/ca"}
    assert handed('{"region": "eu-2"}') == {**HANDED, "region": "eu-2"}
    assert handed("region=eu-2") == {**HANDED, "region": "eu-2"}
    assert handed({"access_key": None, "region": None}) == HANDED


@pytest.mark.parametrize("said", ["access_key", "secret_key", "session_token", "profile", "web_identity_token_file"])
def test_nothing_is_added_to_credentials_of_the_task(said: str) -> None:
    assert handed({said: "own"}) == {said: "own"}


def test_a_role_is_assumed_with_what_is_handed_over() -> None:
    assert handed({"role_arn": "arn"}) == {**HANDED, "role_arn": "arn"}


@pytest.mark.parametrize("said", [{"anonymous": True}, "anonymous=yes"])
def test_nothing_is_handed_over_to_who_reads_anonymously(said: Any) -> None:
    assert handed(said) == said
    assert handed({"anonymous": False}) == {**HANDED, "anonymous": False}


@pytest.mark.parametrize(
    "name",
    [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_PROFILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
    ],
)
def test_nothing_is_added_to_credentials_of_the_tasks_environment(name: str) -> None:
    assert handed(of_task={name: "own"}) is None


def test_an_endpoint_that_is_said_to_be_s3_is_s3() -> None:
    assert handed({"type": "s3"}, url="https://s3.internal/exports") == {**HANDED, "type": "s3"}
    assert handed({"type": "http"}, url="https://s3.internal/exports") == {"type": "http"}
    assert handed(url="https://dav.internal/exports") is None


def test_they_are_for_s3_and_for_who_wants_them() -> None:
    assert handed(url="file:///srv") is None
    assert handed(credentials_from="target") is None
    assert handed("what is this") == "what is this"  # the module tells


@pytest.mark.parametrize("names", ["", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION AWS_SESSION_TOKEN"])
def test_half_of_them_are_none(names: str) -> None:
    half = dict.fromkeys(names.split(), "x")
    arguments = {"url": "s3://exports"}
    assert hand_over(arguments, {}, half) == arguments
    with pytest.raises(VmferryError, match="control node's environment has no credentials") as caught:
        hand_over({**arguments, "credentials_from": "controller"}, {}, half)
    assert caught.value.kind == "invalid_config"


def test_the_newer_name_of_a_variable_comes_first() -> None:
    both = {**WHOLE, "AWS_REGION": "new", "AWS_ENDPOINT_URL_S3": "s3"}
    storage = hand_over({"url": "s3://exports"}, {}, both)["storage"]
    assert (storage["region"], storage["endpoint_url"]) == ("new", "s3")


def test_the_task_is_left_as_it_was() -> None:
    given = {"url": "s3://exports", "storage": {"region": "x"}}
    hand_over(given, {}, WHOLE)
    assert given == {"url": "s3://exports", "storage": {"region": "x"}}
