# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a bucket's owner may ask of requests: who pays, no name at all, a class of storage, a way through an edge."""

from __future__ import annotations

from secrets import token_hex
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.server_copy import CopyOrder
from rigs.fault_proxy import Fault, FaultProxy
from rigs.seaweedfs import PUBLIC_BUCKET

from .s3_wire import EVERY_KIND, exercise, sent_with
from .store_rigs import S3Rig, SloppyS3Rig

CLASS = "x-amz-storage-class"
NO_KEYS: dict[str, Any] = {"access_key": None, "secret_key": None}


@pytest.fixture
def proxy(s3_proxy: FaultProxy) -> FaultProxy:
    s3_proxy.reset()
    return s3_proxy


def class_of(rig: S3Rig, store: Store, key: str) -> str:
    prefix = store.url.removeprefix(f"s3://{rig.bucket}/")
    found = rig.client.list_objects_v2(Bucket=rig.bucket, Prefix=f"{prefix}/{key}")["Contents"][0]
    return str(found["StorageClass"])


def test_an_upload_is_of_the_storage_class_and_small_objects_are_not(sloppy_s3_rig: SloppyS3Rig) -> None:
    # SeaweedFS notes the class and does not list it.
    proxy = sloppy_s3_rig.proxy
    proxy.reset()
    store = sloppy_s3_rig.open(endpoint_url=proxy.endpoint_url, storage_class="STANDARD_IA")
    exercise(store)
    store.put("vm/small", b"x")
    wanted = {kind: {"STANDARD_IA" if kind == "create" else ""} for kind in EVERY_KIND}
    assert sent_with(proxy.requests, CLASS) == wanted
    assert class_of(sloppy_s3_rig, store, "vm/disk-0.qcow2") == "STANDARD_IA"
    assert class_of(sloppy_s3_rig, store, "vm/small") == "STANDARD"


def test_an_empty_upload_is_of_the_storage_class_too(sloppy_s3_rig: SloppyS3Rig) -> None:
    store = sloppy_s3_rig.open(storage_class="STANDARD_IA")
    store.open_parts("vm/empty").complete([], 0)
    assert class_of(sloppy_s3_rig, store, "vm/empty") == "STANDARD_IA"


def test_what_the_server_copies_is_of_the_storage_class_too(sloppy_s3_rig: SloppyS3Rig) -> None:
    source, target = sloppy_s3_rig.open(), sloppy_s3_rig.open(storage_class="STANDARD_IA")
    source.put("a", b"x")
    info = source.stat("a")
    assert info is not None
    assert target.copy_within(source, CopyOrder(info, "b", {})) is not None
    assert class_of(sloppy_s3_rig, target, "b") == "STANDARD_IA"


def test_without_a_storage_class_none_is_asked_for(s3: S3Rig, proxy: FaultProxy) -> None:
    exercise(s3.open(endpoint_url=proxy.endpoint_url))
    assert sent_with(proxy.requests, CLASS) == {kind: {""} for kind in EVERY_KIND}


def test_a_storage_class_that_the_server_has_not_is_the_tasks_mistake(sloppy_s3_rig: SloppyS3Rig) -> None:
    upload = sloppy_s3_rig.open(storage_class="NEARLINE").open_parts("vm/empty")
    with pytest.raises(VmferryError) as raised:
        upload.complete([], 0)  # what moto looks at; AWS refuses to begin the upload
    assert (raised.value.kind, raised.value.retryable) == ("invalid_config", False)
    assert "storage_class" in raised.value.message


def test_an_object_that_was_archived_meanwhile_is_told_as_such(s3: S3Rig, proxy: FaultProxy) -> None:
    proxy.fail_always(Fault(answer=403, body=b"<Error><Code>InvalidObjectState</Code></Error>"))
    with pytest.raises(VmferryError, match="archived") as raised:
        s3.open(endpoint_url=proxy.endpoint_url).get("vm/a")
    assert (raised.value.kind, raised.value.retryable) == ("unsupported", False)


@pytest.mark.parametrize("payer", ["requester", None])
def test_every_request_says_who_pays_where_that_is_asked_for(s3: S3Rig, proxy: FaultProxy, payer: str | None) -> None:
    store = s3.open(endpoint_url=proxy.endpoint_url, request_payer=payer)
    exercise(store)
    store.open_parts("vm/b").abort()
    store.abort_uploads("")
    assert {request.headers.get("x-amz-request-payer") for request in proxy.requests} == {payer}
    assert sent_with(proxy.requests, "x-amz-request-payer").keys() == EVERY_KIND


def test_a_bucket_open_to_everybody_is_read_without_a_name(
    s3: S3Rig, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    s3.client.create_bucket(Bucket=PUBLIC_BUCKET)
    url, key = f"s3://{PUBLIC_BUCKET}/{token_hex(4)}", "vm/manifest.json"
    open_store(url, {**s3.server.settings, "access_key": s3.server.access_key}).put(key, b"{}")
    proxy.reset()
    settings = {**s3.server.settings, **NO_KEYS, "endpoint_url": proxy.endpoint_url}
    store = open_store(url, {**settings, "anonymous": True})
    assert [info.key for info in store.list("")] == [key]
    assert store.get(key) == b"{}"
    assert [request.headers.get("authorization") for request in proxy.requests] == [None] * len(proxy.requests)
    with pytest.raises(VmferryError) as raised:
        store.put(key, b"[]")
    assert raised.value.kind == "permission_denied"
    with pytest.raises(VmferryError) as raised:
        open_store(url, {**settings, "anonymous": False}).get(key)
    assert raised.value.kind == "unauthenticated", "or the bucket would be open to wrong credentials, too"


def test_acceleration_goes_through_the_edge(s3: S3Rig, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", proxy.endpoint_url)
    proxy.fail_always(Fault(answer=403))  # as far as a request gets that must not leave this machine
    for accelerate, host in ((True, "s3-accelerate"), (False, "s3.eu-central-1")):
        proxy.requests.clear()
        store = s3.open(
            endpoint_url=None, region="eu-central-1", addressing_style="auto", use_accelerate_endpoint=accelerate
        )
        with pytest.raises(VmferryError):
            store.put("vm/a", b"x")
        assert [request.target for request in proxy.requests] == [f"{s3.bucket}.{host}.amazonaws.com:443"]


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        ({"storage_class": "GLACIER"}, "storage_class"),
        ({"storage_class": "DEEP_ARCHIVE"}, "storage_class"),
        ({"request_payer": "owner"}, "request_payer"),
        ({"use_accelerate_endpoint": True}, "use_accelerate_endpoint"),
        ({"use_accelerate_endpoint": True, "endpoint_url": None, "addressing_style": "path"}, "use_accelerate"),
        ({"anonymous": True}, "anonymous"),
        ({"anonymous": True, "profile": "offsite", **NO_KEYS}, "anonymous"),
        ({"anonymous": True, "role_arn": "arn:aws:iam::1:role/b", **NO_KEYS}, "anonymous"),
    ],
)
def test_what_does_not_go_together_is_refused(s3: S3Rig, settings: dict[str, Any], option: str) -> None:
    with pytest.raises(VmferryError) as raised:
        s3.open(**settings)
    assert raised.value.kind == "invalid_config"
    assert f"option {option}" in raised.value.message
