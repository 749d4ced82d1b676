# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Encryption by the server: asked for on every request that has to, really done by it, and its keys told to no one."""

from __future__ import annotations

import logging
from base64 import b64decode, b64encode
from hashlib import md5
from secrets import token_bytes
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from rigs.fault_proxy import Fault, FaultProxy

from .s3_wire import EVERY_KIND, exercise, sent_with
from .store_rigs import S3Rig

SSE = "x-amz-server-side-encryption"
KMS_KEY = f"{SSE}-aws-kms-key-id"
CUSTOMER = f"{SSE}-customer"
CREATING = {"put", "create"}
WITH_CUSTOMER_KEY = {"put", "create", "part", "complete", "head", "get"}
KEY = b64encode(token_bytes(32)).decode()
OTHER_KEY = b64encode(token_bytes(32)).decode()


@pytest.fixture
def proxy(s3_proxy: FaultProxy) -> FaultProxy:
    s3_proxy.reset()
    return s3_proxy


def only(kinds: set[str], value: str) -> dict[str, set[str]]:
    return {kind: {value if kind in kinds else ""} for kind in EVERY_KIND}


def at(s3: S3Rig, store: Store, key: str) -> dict[str, str]:
    return {"Bucket": s3.bucket, "Key": f"{store.url.removeprefix(f's3://{s3.bucket}/')}/{key}"}


def stored_as(s3: S3Rig, store: Store) -> dict[str, Any]:
    answer = s3.client.head_object(**at(s3, store, "vm/disk-0.qcow2"))
    return {name: answer.get(name) for name in ("ServerSideEncryption", "SSEKMSKeyId")}


def test_aes256_is_asked_for_where_an_object_begins(s3: S3Rig, proxy: FaultProxy) -> None:
    store = s3.open(endpoint_url=proxy.endpoint_url, sse="AES256")
    exercise(store)
    assert sent_with(proxy.requests, SSE) == only(CREATING, "AES256")
    assert stored_as(s3, store) == {"ServerSideEncryption": "AES256", "SSEKMSKeyId": None}


def test_a_kms_key_is_asked_for_by_its_id(s3: S3Rig, proxy: FaultProxy) -> None:
    store = s3.open(endpoint_url=proxy.endpoint_url, sse="aws:kms", sse_kms_key_id="key-of-the-exports")
    exercise(store)
    assert sent_with(proxy.requests, SSE) == only(CREATING, "aws:kms")
    assert sent_with(proxy.requests, KMS_KEY) == only(CREATING, "key-of-the-exports")
    assert stored_as(s3, store) == {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "key-of-the-exports"}


def test_without_a_kms_key_id_the_server_chooses(s3: S3Rig, proxy: FaultProxy) -> None:
    proxy.fail_always(Fault(answer=501))  # which key an account has by default is no business of a rig
    with pytest.raises(VmferryError):
        s3.open(endpoint_url=proxy.endpoint_url, sse="aws:kms").put("vm/a", b"x")
    assert sent_with(proxy.requests, SSE) == {"put": {"aws:kms"}}
    assert sent_with(proxy.requests, KMS_KEY) == {"put": {""}}


def test_without_sse_nothing_is_asked_for(s3: S3Rig, proxy: FaultProxy) -> None:
    exercise(s3.open(endpoint_url=proxy.endpoint_url))
    for header in (SSE, KMS_KEY, f"{CUSTOMER}-key", f"{CUSTOMER}-algorithm"):
        assert sent_with(proxy.requests, header) == only(set(), "")


def test_a_customer_key_goes_with_every_request_about_the_data(s3: S3Rig, proxy: FaultProxy) -> None:
    store = s3.open(endpoint_url=proxy.endpoint_url, sse_customer_key=KEY)
    exercise(store)
    digest = b64encode(md5(b64decode(KEY), usedforsecurity=False).digest()).decode()
    assert sent_with(proxy.requests, f"{CUSTOMER}-key") == only(WITH_CUSTOMER_KEY, KEY)
    assert sent_with(proxy.requests, f"{CUSTOMER}-key-md5") == only(WITH_CUSTOMER_KEY, digest)
    assert sent_with(proxy.requests, f"{CUSTOMER}-algorithm") == only(WITH_CUSTOMER_KEY, "AES256")
    assert sent_with(proxy.requests, SSE) == only(set(), "")
    with pytest.raises(ClientError):
        s3.client.get_object(**at(s3, store, "vm/disk-0.qcow2"))


def test_an_empty_object_is_encrypted_like_any_other(s3: S3Rig, proxy: FaultProxy) -> None:
    store = s3.open(endpoint_url=proxy.endpoint_url, sse_customer_key=KEY)
    store.open_parts("vm/empty").complete([], 0)
    assert sent_with(proxy.requests, f"{CUSTOMER}-key")["put"] == {KEY}
    assert store.get("vm/empty") == b""


def test_probing_and_aborting_work_with_a_customer_key(s3: S3Rig) -> None:
    store = s3.open(sse_customer_key=KEY)
    assert store.probe("vm/.probe").verifies_checksums
    store.open_parts("vm/disk-0.qcow2").abort()
    assert s3.leftovers(store) == []


@pytest.fixture
def written(s3: S3Rig) -> Store:
    store = s3.open(sse_customer_key=KEY)
    store.put("vm/manifest.json", b"{}")
    return store


def again(s3: S3Rig, written: Store, **settings: Any) -> Store:
    return open_store(written.url, {**s3.server.settings, **settings})


def read_by_head(store: Store) -> None:
    store.stat("vm/manifest.json")


def read_by_get(store: Store) -> None:
    store.read_into("vm/manifest.json", 0, memoryview(bytearray(2)))


@pytest.mark.parametrize("read", [read_by_head, read_by_get])
def test_a_wrong_customer_key_is_the_first_thing_to_check(s3: S3Rig, written: Store, read: Any) -> None:
    with pytest.raises(VmferryError) as raised:
        read(again(s3, written, sse_customer_key=OTHER_KEY))
    error = raised.value
    assert (error.kind, error.retryable) == ("permission_denied", False)
    assert "written with another sse_customer_key" in error.message
    assert written.url in error.message


@pytest.mark.parametrize("read", [read_by_head, read_by_get])
def test_a_key_for_what_has_none_is_not_wanted(s3: S3Rig, proxy: FaultProxy, read: Any) -> None:
    # As AWS answers; SeaweedFS does not mind.
    proxy.fail_always(Fault(answer=400, body=b"<Error><Code>InvalidRequest</Code></Error>"))
    with pytest.raises(VmferryError) as raised:
        read(s3.open(endpoint_url=proxy.endpoint_url, sse_customer_key=KEY))
    assert (raised.value.kind, raised.value.retryable) == ("invalid_config", False)
    assert "without sse_customer_key" in raised.value.hint


@pytest.mark.parametrize("read", [read_by_head, read_by_get])
def test_a_missing_customer_key_is_asked_for(s3: S3Rig, written: Store, read: Any) -> None:
    with pytest.raises(VmferryError) as raised:
        read(again(s3, written))
    assert (raised.value.kind, raised.value.retryable) == ("invalid_config", False)
    assert "sse_customer_key" in raised.value.hint


def test_a_customer_key_is_in_no_error_and_no_log(
    s3: S3Rig, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    echo = f"<Error><Code>InvalidArgument</Code><Message>bad key {KEY} {OTHER_KEY}</Message></Error>"
    said = []
    for key in (KEY, KEY[:-4], f"{KEY}é"):
        proxy.reset()
        proxy.fail_always(Fault(answer=400, body=echo.encode()))
        with pytest.raises(VmferryError) as raised:
            s3.open(endpoint_url=proxy.endpoint_url, sse_customer_key=key).put("vm/a", b"x")
        said.append(f"{raised.value!r} {raised.value} {raised.value.hint} {raised.value.as_result()}")
    proxy.reset()
    assert OTHER_KEY in said[0], "what the server says is shown, so its echo of the key has to be blotted out"
    assert KEY[:-4] not in "".join([*said, caplog.text])
