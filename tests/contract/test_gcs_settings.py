# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the storage options change on the wire to Cloud Storage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from rigs.fault_proxy import Fault, FaultProxy
from rigs.nbd import certificates
from rigs.tls_front import TlsFront, tls_front

from .gcs_rig import TOKEN, GcsRig
from .gcs_wire import EVERY_KIND, asked_with, exercise

KEY = "projects/p/locations/eu/keyRings/r/cryptoKeys/k"


@pytest.fixture
def proxy(gcs: GcsRig) -> FaultProxy:
    gcs.proxy.reset()
    return gcs.proxy


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificates(tmp_path_factory.mktemp("pki"), "localhost")


@pytest.fixture(scope="module")
def front(gcs: GcsRig, pki: Path) -> Iterator[TlsFront]:
    with tls_front(gcs.proxy.port, pki) as front:
        yield front


@pytest.fixture
def address(front: TlsFront, proxy: FaultProxy) -> str:
    return f"https://localhost:{front.port}"


def refused(store: Store) -> VmferryError:
    with pytest.raises(VmferryError) as raised:
        store.put("vm/a", b"x")
    assert not raised.value.retryable
    return raised.value


@pytest.mark.parametrize("project", [None, "payer-1"])
def test_every_request_names_the_project_that_pays_where_one_is_given(
    gcs: GcsRig, proxy: FaultProxy, project: str | None
) -> None:
    exercise(gcs.open(endpoint_url=proxy.endpoint_url, user_project=project))
    assert asked_with(proxy.requests, "userProject") == {kind: {project or ""} for kind in EVERY_KIND}


def test_the_key_goes_with_what_creates_an_object_and_with_nothing_else(gcs: GcsRig, proxy: FaultProxy) -> None:
    exercise(gcs.open(endpoint_url=proxy.endpoint_url, kms_key_name=KEY))
    creating = {"insert", "compose"}
    assert asked_with(proxy.requests, "kmsKeyName") == {
        kind: {KEY} if kind in creating else {""} for kind in EVERY_KIND
    }


@pytest.mark.parametrize(("asked", "found"), [(None, "STANDARD"), ("NEARLINE", "NEARLINE")])
def test_what_is_written_gets_the_storage_class(gcs_emulator: GcsRig, asked: str | None, found: str) -> None:
    store = gcs_emulator.open(storage_class=asked)
    exercise(store)
    store.put("vm/note", b"x")
    prefix = store.url.removeprefix(f"gs://{gcs_emulator.bucket}/")
    written = gcs_emulator.server.objects(gcs_emulator.bucket, prefix)
    assert [item["storageClass"] for item in written] == [found] * 2


@pytest.mark.parametrize(
    "url", ["gs://", "gs:///prefix", "gs://bucket:80/prefix", "gs://bucket/a//b", "gs://bucket/../b"]
)
def test_a_url_that_names_no_place_is_refused(gcs: GcsRig, url: str) -> None:
    with pytest.raises(VmferryError) as raised:
        open_store(url, gcs.server.settings)
    assert raised.value.kind == "invalid_config"


@pytest.mark.parametrize("url", ["gs://{bucket}", "gs://{bucket}/", "gs://{bucket}/a%20b/c", "gs://{bucket}/ünï/"])
def test_a_bucket_or_a_prefix_in_it_is_a_store(gcs: GcsRig, url: str) -> None:
    store = gcs.open_at(url.format(bucket=gcs.bucket))
    store.put("vm/a", b"x")
    assert [info.key for info in store.list("")][-1] == "vm/a"
    store.delete("vm/a")


def test_without_an_endpoint_it_is_googles_and_the_proxy_of_the_environment_is_asked(
    gcs: GcsRig, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", proxy.endpoint_url)
    proxy.fail_always(Fault(answer=403))  # as far as a request gets that must not leave this machine
    with pytest.raises(VmferryError):
        open_store("gs://bucket", {"auth_kind": "anonymous"}).put("vm/a", b"x")
    assert [(request.method, request.target) for request in proxy.requests] == [
        ("CONNECT", "storage.googleapis.com:443")
    ]


def test_a_default_entry_of_netrc_does_not_replace_the_token(
    gcs: GcsRig, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("default login somebody password something\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    gcs.open(endpoint_url=proxy.endpoint_url, auth_kind=None, access_token=TOKEN).put("vm/a", b"x")
    assert {request.headers["authorization"] for request in proxy.requests} == {f"Bearer {TOKEN}"}


def test_an_answer_that_does_not_come_is_given_up_after_read_timeout(gcs: GcsRig, proxy: FaultProxy) -> None:
    proxy.fail_next(Fault(delay=0.7), Fault(delay=0.7))
    gcs.open(endpoint_url=proxy.endpoint_url, read_timeout=30).put("vm/a", b"x")
    with pytest.raises(VmferryError) as raised:
        gcs.open(endpoint_url=proxy.endpoint_url, read_timeout=0.3).put("vm/a", b"x")
    assert raised.value.kind == "timeout"


def test_an_authority_of_ones_own_is_trusted_when_ca_path_names_it(gcs: GcsRig, address: str, pki: Path) -> None:
    exercise(gcs.open(endpoint_url=address, ca_path=str(pki / "ca-cert.pem")))


def test_an_unknown_authority_is_refused_and_the_hint_names_ca_path(
    gcs: GcsRig, address: str, proxy: FaultProxy
) -> None:
    error = refused(gcs.open(endpoint_url=address))
    assert (error.kind, "certificate" in error.message, "ca_path" in error.hint) == ("network", True, True)
    assert proxy.requests == []


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_without_validate_certs_any_certificate_will_do_whatever_the_environment_trusts(
    gcs: GcsRig, front: TlsFront, address: str, pki: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/ssl/certs/ca-certificates.crt")
    exercise(gcs.open(endpoint_url=address, validate_certs=False))
    exercise(gcs.open(endpoint_url=f"https://127.0.0.1:{front.port}", validate_certs=False, ca_path=str(pki / "none")))


def test_a_certificate_for_another_name_is_refused_whoever_signed_it(gcs: GcsRig, front: TlsFront, pki: Path) -> None:
    error = refused(gcs.open(endpoint_url=f"https://127.0.0.1:{front.port}", ca_path=str(pki / "ca-cert.pem")))
    assert (error.kind, "another host name" in error.message) == ("network", True)


@pytest.mark.parametrize("content", [None, "these are no certificates"])
def test_a_ca_path_that_cannot_be_used_is_named(gcs: GcsRig, address: str, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(VmferryError) as raised:
        gcs.open(endpoint_url=address, ca_path=str(path))
    assert raised.value.kind == "invalid_config"
    assert f"ca_path {path}" in raised.value.message


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"endpoint_url": "storage.example.org"}, "endpoint_url"),
        ({"endpoint_url": "https://user:secret@storage.example.org"}, "endpoint_url"),
        ({"auth_kind": "password"}, "auth_kind"),
        ({"auth_kind": "serviceaccount"}, "service_account_file"),
        ({"auth_kind": "accesstoken"}, "access_token"),
        ({"auth_kind": "anonymous", "access_token": TOKEN}, "anonymous"),
        ({"auth_kind": "machineaccount", "service_account_file": "/root/sa.json"}, "machineaccount"),
        ({"auth_kind": None, "access_token": TOKEN, "service_account_contents": TOKEN}, "exclude each other"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(gcs: GcsRig, options: dict[str, Any], word: str) -> None:
    with pytest.raises(VmferryError) as raised:
        gcs.open(**options)
    error = raised.value
    assert (error.kind, word in error.message, bool(error.hint)) == ("invalid_config", True, True)
    assert TOKEN not in f"{error.message} {error.hint}"
    assert "secret" not in error.message
