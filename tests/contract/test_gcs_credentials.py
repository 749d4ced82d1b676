# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose requests they are, as Cloud Storage sees it: keys, tokens, the machine's own account, nobody's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.gcs.settings import GcsSettings
from rigs.fault_proxy import FaultProxy
from rigs.google_tokens import GoogleTokens, google_tokens

from .gcs_rig import TOKEN, GcsRig, refusal
from .gcs_wire import exercise, tokens_of

# In a process of its own: google-auth reads its environment as it is imported.
PUT = """
import json, sys
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
url, settings = sys.argv[1], json.loads(sys.argv[2])
try:
    open_store(url, settings).put("vm/a", b"x")
except VmferryError as error:
    print(json.dumps([error.kind, error.retryable, error.message, error.hint]))
"""


@pytest.fixture
def proxy(gcs: GcsRig) -> FaultProxy:
    gcs.proxy.reset()
    return gcs.proxy


@pytest.fixture(scope="module")
def service() -> Iterator[GoogleTokens]:
    with google_tokens() as service:
        yield service


@pytest.fixture(scope="module")
def key(service: GoogleTokens) -> str:
    return service.key_of_an_account()


@pytest.fixture
def tokens(service: GoogleTokens) -> GoogleTokens:
    service.refusing = ""
    service.requests.clear()
    service.issued.clear()
    return service


@pytest.fixture
def key_file(key: str, tmp_path: Path) -> Path:
    path = tmp_path / "key.json"
    path.write_text(key)
    return path


def put(gcs: GcsRig, proxy: FaultProxy, environment: dict[str, str], **settings: Any) -> list[Any] | None:
    """The error, or None."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("GOOGLE_", "GCE_", "GCLOUD_"))}
    child = {**ours, "PYTHONPATH": os.pathsep.join(sys.path), "HOME": "/nonexistent", "CLOUDSDK_CONFIG": "/nonexistent"}
    arguments = [f"gs://{gcs.bucket}/account", json.dumps({"endpoint_url": proxy.endpoint_url, **settings})]
    done = subprocess.run(
        [sys.executable, "-c", PUT, *arguments],
        env={**child, **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout) if done.stdout else None


def test_nobody_signs_in_as_nobody(gcs: GcsRig, proxy: FaultProxy) -> None:
    exercise(gcs.open(endpoint_url=proxy.endpoint_url))
    assert tokens_of(proxy.requests) == {""}


@pytest.mark.parametrize("kind", [None, "accesstoken"])
def test_an_access_token_goes_with_every_request(gcs: GcsRig, proxy: FaultProxy, kind: str | None) -> None:
    exercise(gcs.open(endpoint_url=proxy.endpoint_url, auth_kind=kind, access_token=TOKEN))
    assert tokens_of(proxy.requests) == {TOKEN}


@pytest.mark.parametrize("option", ["service_account_file", "service_account_contents"])
def test_a_service_account_gets_one_token_for_all_requests(
    gcs: GcsRig, proxy: FaultProxy, tokens: GoogleTokens, key: str, key_file: Path, option: str
) -> None:
    given = {"service_account_file": str(key_file), "service_account_contents": key}[option]
    exercise(gcs.open(endpoint_url=proxy.endpoint_url, auth_kind=None, **{option: given}))
    assert tokens.requests == ["POST /token"]
    assert tokens_of(proxy.requests) == set(tokens.issued)


def test_a_token_that_was_taken_back_is_renewed_once_and_the_body_sent_again(
    gcs: GcsRig, proxy: FaultProxy, tokens: GoogleTokens, key: str
) -> None:
    store = gcs.open(endpoint_url=proxy.endpoint_url, auth_kind=None, service_account_contents=key)
    proxy.fail_next(refusal(401, "authError"))
    store.put("vm/a", b"all of it")
    assert store.get("vm/a") == b"all of it"
    assert [request.headers["authorization"] for request in proxy.requests[:2]] == [
        f"Bearer {token}" for token in tokens.issued
    ]
    proxy.fail_next(*[refusal(401, "authError")] * 2)
    with pytest.raises(VmferryError) as raised:
        store.put("vm/a", b"x")
    assert (raised.value.kind, len(tokens.issued)) == ("unauthenticated", 3)


def test_an_account_that_is_refused_is_told_without_what_the_answer_quotes(
    gcs: GcsRig, proxy: FaultProxy, tokens: GoogleTokens, key: str
) -> None:
    tokens.refusing = json.dumps({"error": "invalid_grant", "error_description": f"No account {TOKEN}"})
    store = gcs.open(endpoint_url=proxy.endpoint_url, auth_kind=None, service_account_contents=key)
    with pytest.raises(VmferryError) as raised:
        store.put("vm/a", b"x")
    assert (raised.value.kind, raised.value.retryable) == ("unauthenticated", False)
    assert store.url in raised.value.message
    assert TOKEN not in "".join(traceback.format_exception(raised.value))
    assert proxy.requests == []


def test_the_file_that_google_names_in_the_environment_is_used(
    gcs: GcsRig, proxy: FaultProxy, tokens: GoogleTokens, key_file: Path
) -> None:
    assert put(gcs, proxy, {"GOOGLE_APPLICATION_CREDENTIALS": str(key_file)}) is None
    assert tokens.requests == ["POST /token"]
    assert tokens_of(proxy.requests) == set(tokens.issued)


@pytest.mark.parametrize("kind", [None, "application", "machineaccount"])
def test_the_account_of_the_machine_is_used_when_nothing_else_is_given(
    gcs: GcsRig, proxy: FaultProxy, tokens: GoogleTokens, kind: str | None
) -> None:
    machine = {"GCE_METADATA_HOST": tokens.address, "GCE_METADATA_IP": tokens.address}
    assert put(gcs, proxy, machine, auth_kind=kind) is None
    assert tokens_of(proxy.requests) == set(tokens.issued)
    assert any(request.endswith("default/token") for request in tokens.requests)


def test_where_there_are_no_credentials_it_says_so(gcs: GcsRig, proxy: FaultProxy) -> None:
    error = put(gcs, proxy, {"NO_GCE_CHECK": "true"})
    assert error is not None
    assert error[:2] == ["unauthenticated", False]
    assert "no credentials were found" in error[2]
    assert "service_account_file" in error[3]


@pytest.mark.parametrize("content", [None, "", "[]", json.dumps({"type": "service_account", "private_key": TOKEN})])
def test_a_key_that_is_none_is_named_and_not_quoted(gcs: GcsRig, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "key.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(VmferryError) as raised:
        gcs.open(auth_kind=None, service_account_file=str(path))
    assert raised.value.kind == "invalid_config"
    assert f"service_account_file {path}" in raised.value.message
    assert TOKEN not in "".join(traceback.format_exception(raised.value))


def test_no_secret_shows_in_what_describes_the_settings(key: str) -> None:
    shown = [repr(GcsSettings(access_token=TOKEN)), repr(GcsSettings(service_account_contents=key))]
    assert not [text for text in shown if TOKEN in text or "PRIVATE" in text or "0123456789abcdef" in text]


def test_what_a_server_quotes_of_a_key_is_blotted_out(
    gcs: GcsRig, proxy: FaultProxy, tokens: GoogleTokens, key: str
) -> None:
    store = gcs.open(endpoint_url=proxy.endpoint_url, auth_kind=None, service_account_contents=key)
    proxy.fail_next(refusal(400, "invalid", json.loads(key)["private_key_id"]))
    with pytest.raises(VmferryError) as raised:
        store.put("vm/a", b"x")
    assert "invalid (…" in raised.value.message
