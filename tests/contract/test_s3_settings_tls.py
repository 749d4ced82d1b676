# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""S3 over TLS, with an authority of our own: trusted when it is named, refused in plain words otherwise."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3.exceptions
from botocore.exceptions import SSLError
from urllib3.util.ssl_match_hostname import CertificateError

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.s3.errors import translated
from rigs.fault_proxy import FaultProxy
from rigs.nbd import certificates
from rigs.tls_front import TlsFront, tls_front

from .s3_wire import exercise, sent_with
from .store_rigs import S3Rig

PAYLOAD_HASH = "x-amz-content-sha256"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificates(tmp_path_factory.mktemp("pki"), "localhost")


@pytest.fixture(scope="module")
def front(s3_proxy: FaultProxy, pki: Path) -> Iterator[TlsFront]:
    with tls_front(s3_proxy.port, pki) as front:
        yield front


@pytest.fixture
def proxy(s3_proxy: FaultProxy) -> FaultProxy:
    s3_proxy.reset()
    return s3_proxy


@pytest.fixture
def address(front: TlsFront, proxy: FaultProxy) -> str:
    return f"https://localhost:{front.port}"


def refused(store: Store) -> VmferryError:
    with pytest.raises(VmferryError) as raised:
        store.put("vm/a", b"x")
    assert not raised.value.retryable
    return raised.value


def test_an_authority_of_ones_own_is_trusted_when_ca_path_names_it(s3: S3Rig, address: str, pki: Path) -> None:
    exercise(s3.open(endpoint_url=address, ca_path=str(pki / "ca-cert.pem")))


def test_an_unknown_authority_is_refused_and_the_hint_names_ca_path(s3: S3Rig, address: str, proxy: FaultProxy) -> None:
    error = refused(s3.open(endpoint_url=address))
    assert (error.kind, "certificate" in error.message, "ca_path" in error.hint) == ("network", True, True)
    assert address in error.message
    assert proxy.requests == []


def test_a_profile_brings_its_authority_along(
    s3: S3Rig, address: str, pki: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = f"aws_access_key_id = {s3.server.access_key}\naws_secret_access_key = {s3.server.secret_key}\n"
    (tmp_path / "config").write_text(f"[profile exports]\nca_bundle = {pki / 'ca-cert.pem'}\n{keys}")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    store = s3.open(endpoint_url=address, profile="exports", access_key=None, secret_key=None)
    store.put("vm/a", b"x")
    assert store.get("vm/a") == b"x"


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_without_validate_certs_any_certificate_will_do(s3: S3Rig, front: TlsFront, address: str, pki: Path) -> None:
    exercise(s3.open(endpoint_url=address, validate_certs=False))
    exercise(s3.open(endpoint_url=f"https://127.0.0.1:{front.port}", validate_certs=False, ca_path=str(pki / "none")))


def test_a_certificate_for_another_name_is_refused_whoever_signed_it(
    s3: S3Rig, front: TlsFront, proxy: FaultProxy, pki: Path
) -> None:
    error = refused(s3.open(endpoint_url=f"https://127.0.0.1:{front.port}", ca_path=str(pki / "ca-cert.pem")))
    assert (error.kind, "another host name" in error.message) == ("network", True)
    assert ("endpoint_url" in error.hint, "ca_path" in error.hint) == (True, False)
    assert proxy.requests == []


@pytest.mark.parametrize("content", [None, "these are no certificates"])
def test_a_ca_path_that_cannot_be_used_is_named(s3: S3Rig, address: str, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(VmferryError) as raised:
        s3.open(endpoint_url=address, ca_path=str(path)).put("vm/a", b"x")
    assert raised.value.kind == "invalid_config"
    assert f"ca_path {path}" in raised.value.message


def certificate_error(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError()
    error.verify_code = code
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (certificate_error(10), "has expired"),
        (certificate_error(20), "was not accepted"),
        (certificate_error(62), "another host name"),
        (ssl.SSLCertVerificationError("hostname 'a' doesn't match 'b'"), "another host name"),  # Python 3.9, urllib3 1
        (CertificateError("hostname 'a' doesn't match 'b'"), "another host name"),
    ],
)
def test_why_a_certificate_was_refused_is_told_from_the_innermost_error(error: Exception, words: str) -> None:
    wrapped = SSLError(endpoint_url="https://s3.test", error=urllib3.exceptions.SSLError(error))
    with pytest.raises(VmferryError, match=words), translated("Writing"):
        raise wrapped


def test_over_tls_the_payload_is_not_hashed_for_the_signature(
    s3: S3Rig, address: str, proxy: FaultProxy, pki: Path
) -> None:
    exercise(s3.open(endpoint_url=address, ca_path=str(pki / "ca-cert.pem")))
    sent = sent_with(proxy.requests, PAYLOAD_HASH)
    assert (sent["put"], sent["part"]) == ({"UNSIGNED-PAYLOAD"}, {"UNSIGNED-PAYLOAD"})
    assert sent_with(proxy.requests, "content-encoding")["part"] == {""}  # no aws-chunked framing


def test_over_plain_http_the_payload_is_signed_as_a_whole(s3: S3Rig, proxy: FaultProxy) -> None:
    exercise(s3.open(endpoint_url=proxy.endpoint_url))
    hashes = sent_with(proxy.requests, PAYLOAD_HASH)["part"]
    assert [len(bytes.fromhex(each)) for each in hashes] == [32, 32]
    assert sent_with(proxy.requests, "content-encoding")["part"] == {""}
