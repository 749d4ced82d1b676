# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each setting of an HTTP store as the server sees it, or as the certificate does."""

from __future__ import annotations

import http.server
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Part, PartReceipt
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from rigs.black_hole import black_hole
from rigs.fault_proxy import Fault, FaultProxy, Request, fault_proxy
from rigs.nbd import certificates, openssl
from rigs.webdav import TOKEN

from .dav_rig import NginxDavRig, RcloneDavRig

EVERY_METHOD = {"PROPFIND", "MKCOL", "PUT", "MOVE", "HEAD", "GET", "OPTIONS", "LOCK", "UNLOCK", "DELETE"}


@pytest.fixture
def proxy(nginx_dav: NginxDavRig) -> FaultProxy:
    nginx_dav.proxy.reset()
    return nginx_dav.proxy


def exercise(store: Store) -> None:
    """Every kind of request."""
    store.probe("vm/probe")
    info = store.put("vm/a", b"x", metadata={"vm": "Büro"})
    store.put("vm/a", b"yz", if_match=info.etag)
    writer = store.open_parts("vm/b")
    parts = [Part(1, 0, 5), Part(2, 5, 3)]
    writer.complete(
        [PartReceipt(part, b"", writer.write_part(part, memoryview(b"z" * part.size))) for part in parts], 8
    )
    assert store.get("vm/b") == b"z" * 8
    assert [info.key for info in store.list("")] == ["vm/a", "vm/b"]
    store.delete("vm/a")
    store.abort_uploads("")


def error_of(store: Store) -> VmferryError:
    with pytest.raises(VmferryError) as raised:
        store.put("vm/a", b"x")
    return raised.value


def basic(user: str, password: str) -> str:
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


def sent(proxy: FaultProxy, header: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for request in proxy.requests:
        found.setdefault(request.method, set()).add(request.headers.get(header, ""))
    return found


def test_every_request_carries_the_token_and_the_headers(nginx_dav: NginxDavRig, proxy: FaultProxy) -> None:
    exercise(nginx_dav.open(url=proxy.endpoint_url, headers={"X-Tenant": "lab"}))
    assert sent(proxy, "authorization") == {method: {f"Bearer {TOKEN}"} for method in EVERY_METHOD}
    assert sent(proxy, "x-tenant") == {method: {"lab"} for method in EVERY_METHOD}


def test_user_and_password_are_sent_as_basic_authentication(rclone_dav: RcloneDavRig) -> None:
    rclone_dav.proxy.reset()
    exercise(rclone_dav.open(url=rclone_dav.proxy.endpoint_url))
    pair = f"{rclone_dav.server.settings['username']}:{rclone_dav.server.settings['password']}"
    assert set.union(*sent(rclone_dav.proxy, "authorization").values()) == {
        f"Basic {b64encode(pair.encode()).decode()}"
    }


def test_a_netrc_is_not_asked(nginx_dav: NginxDavRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").write_text("default login ferry password of-somebody\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    nginx_dav.proxy.reset()
    assert error_of(nginx_dav.open(url=nginx_dav.proxy.endpoint_url, token=None)).kind == "unauthenticated"
    assert sent(nginx_dav.proxy, "authorization") == {"PROPFIND": {""}}


def test_a_body_travels_with_its_checksum_and_metadata_and_never_as_a_range(
    nginx_dav: NginxDavRig, proxy: FaultProxy
) -> None:
    """A server that does not know `Content-Range` on PUT stores the piece as the whole file."""
    exercise(nginx_dav.open(url=proxy.endpoint_url))
    puts = [request for request in proxy.requests if request.method == "PUT"]
    assert all("content-range" not in request.headers for request in proxy.requests)
    joined = [request for request in puts if request.target.endswith("/whole")]
    assert len(joined) == 1
    assert all(
        len(request.headers["x-checksum-sha256"]) == 64 for request in puts if request.length and request not in joined
    )
    assert "B%C3%BCro" in {request.headers.get("x-metadata-vm") for request in puts}


def test_what_is_written_gets_its_name_by_a_move_alone(nginx_dav: NginxDavRig, proxy: FaultProxy) -> None:
    exercise(nginx_dav.open(url=proxy.endpoint_url))
    assert all(".part" in request.target for request in proxy.requests if request.method == "PUT")
    assert {request.headers["overwrite"] for request in proxy.requests if request.method == "MOVE"} == {"T", "F"}


class _Kept(http.server.BaseHTTPRequestHandler):
    """Serves one object with what a server that keeps headers would answer."""

    protocol_version = "HTTP/1.1"
    data = b"0123456789"
    checksum = sha256(data).hexdigest().upper()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.send_response(200)  # whatever range was asked for
        self.send_header("Content-Length", str(len(self.data)))
        self.send_header("X-Checksum-SHA256", self.checksum)
        self.send_header("X-Metadata-VM-Name", "B%C3%BCro")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(self.data)

    def log_message(self, *_unused: Any) -> None:
        pass


@contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_what_the_server_keeps_of_checksum_and_metadata_is_read() -> None:
    with serving(_Kept) as url:
        info = open_store(url, {}).stat("a")
    assert info is not None
    assert info.metadata == {"vm-name": "Büro", "vmferry-sha256": sha256(_Kept.data).hexdigest()}


def test_what_does_not_fit_the_checksum_that_the_server_kept_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Kept, "checksum", "ab" * 32)
    with serving(_Kept) as url:
        store = open_store(url, {})
        assert store.read_whole("a", 3) == b"012"  # of a part of it nothing can be said
        with pytest.raises(VmferryError) as raised:
            store.get("a")
    assert raised.value.kind == "checksum_mismatch"


def test_a_connection_is_waited_for_no_longer_than_connect_timeout() -> None:
    with black_hole() as port:
        started = time.monotonic()
        error = error_of(open_store(f"http://127.0.0.1:{port}/x", {"connect_timeout": 0.5, "read_timeout": 30.0}))
    assert error.kind == "timeout"
    assert 0.4 < time.monotonic() - started < 5


def test_what_the_server_asks_to_wait_is_told(nginx_dav: NginxDavRig, proxy: FaultProxy) -> None:
    proxy.fail_next(Fault(answer=503, headers={"Retry-After": "7"}))
    error = error_of(nginx_dav.open(url=proxy.endpoint_url))
    assert (error.kind, error.retry_after) == ("rate_limited", 7.0)


def test_a_server_without_ranges_is_told_so_and_its_object_is_not_read_whole() -> None:
    with serving(_Kept) as url:
        store = open_store(url, {})
        assert store.get("a") == _Kept.data
        with pytest.raises(VmferryError) as raised:
            store.read_into("a", 4, memoryview(bytearray(2)))
    assert raised.value.kind == "unsupported"
    assert "range" in raised.value.hint


def test_a_server_that_is_no_webdav_server_is_read_and_refused_for_writing_before_a_byte() -> None:
    with serving(_Kept) as url:
        store = open_store(url, {})
        store.require_root()
        for call in (lambda: store.put("a", b"x"), lambda: store.open_parts("a"), lambda: list(store.list(""))):
            with pytest.raises(VmferryError) as raised:
                call()
            assert (raised.value.kind, "WebDAV" in raised.value.hint) == ("unsupported", True)


def test_a_redirect_elsewhere_is_followed_to_read_and_takes_no_credentials_along(nginx_dav: NginxDavRig) -> None:
    seen: list[dict[str, str]] = []

    class Elsewhere(_Kept):
        def do_GET(self) -> None:
            seen.append({name.lower(): value for name, value in self.headers.items()})
            super().do_GET()

    proxy = nginx_dav.proxy
    with serving(Elsewhere) as url:
        proxy.reset()
        proxy.fail_always(Fault(answer=302, headers={"Location": f"{url}/a"}))
        store = nginx_dav.open(url=proxy.endpoint_url, headers={"X-Tenant": "lab"})
        assert store.get("a") == _Kept.data
        error = error_of(store)
        proxy.reset()
    assert not [each for each in seen if "authorization" in each or "x-tenant" in each]
    assert len(seen) == 2
    assert error.kind == "unsupported"
    assert url.removeprefix("http://") in error.message


def test_a_server_that_redirects_for_ever_is_left(nginx_dav: NginxDavRig, proxy: FaultProxy) -> None:
    proxy.fail_always(Fault(answer=301, headers={"Location": "/elsewhere"}))
    with pytest.raises(VmferryError) as raised:
        nginx_dav.open(url=proxy.endpoint_url).stat("a")
    proxy.reset()
    assert raised.value.kind == "unsupported"


def test_an_unknown_authority_is_refused_and_the_hint_names_ca_path(nginx_dav: NginxDavRig) -> None:
    error = error_of(nginx_dav.open(ca_path=None))
    assert (error.kind, error.retryable, "ca_path" in error.hint) == ("network", False, True)


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_without_validate_certs_any_certificate_will_do(nginx_dav: NginxDavRig) -> None:
    exercise(nginx_dav.open(ca_path=None, validate_certs=False))


def test_a_certificate_for_another_name_is_refused_and_the_hint_names_the_url(nginx_dav: NginxDavRig) -> None:
    error = error_of(nginx_dav.open(url=nginx_dav.server.url.replace("localhost", "127.0.0.1")))
    assert (error.kind, "another host name" in error.message, "storage URL" in error.hint) == ("network", True, True)


@pytest.fixture(scope="module")
def identity(nginx_dav: NginxDavRig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of a client that the server's authority signed."""
    pki, folder = nginx_dav.server.pki, tmp_path_factory.mktemp("identity")
    key, request, cert = folder / "key.pem", folder / "request.pem", folder / "cert.pem"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-new", *curve, "-subj", "/CN=ferry", "-keyout", key, "-out", request)
    signing = ["-CA", pki / "ca-cert.pem", "-CAkey", pki / "ca-key.pem", "-CAcreateserial", "-days", "2"]
    openssl("x509", "-req", "-in", request, *signing, "-out", cert)
    return folder


def test_a_client_certificate_is_shown(nginx_dav: NginxDavRig, identity: Path) -> None:
    url = f"{nginx_dav.server.url}/by-certificate/exports"
    settings = {"ca_path": nginx_dav.server.settings["ca_path"]}
    assert error_of(open_store(url, settings)).kind == "permission_denied"
    files = {"client_cert": str(identity / "cert.pem"), "client_key": str(identity / "key.pem")}
    exercise(open_store(url, {**settings, **files}))
    both = identity / "both.pem"
    both.write_bytes((identity / "key.pem").read_bytes() + (identity / "cert.pem").read_bytes())
    exercise(open_store(url, {**settings, "client_cert": str(both)}))


@pytest.mark.parametrize("spoiled", ["missing", "passphrase", "garbage"])
def test_a_client_certificate_that_cannot_be_used_is_named(identity: Path, tmp_path: Path, spoiled: str) -> None:
    key = tmp_path / "key.pem"
    if spoiled == "passphrase":
        openssl("ec", "-in", identity / "key.pem", "-aes256", "-passout", "pass:open sesame", "-out", key)
    elif spoiled == "garbage":
        key.write_text("no key")
    with pytest.raises(VmferryError) as raised:
        open_store("https://localhost/x", {"client_cert": str(identity / "cert.pem"), "client_key": str(key)})
    assert raised.value.kind == "invalid_config"
    assert str(key) in raised.value.message


def test_a_proxy_of_the_environment_is_used_unless_no_proxy_names_the_host(
    nginx_dav: NginxDavRig, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with fault_proxy(nginx_dav.server.port) as other:
        monkeypatch.setenv("http_proxy", other.endpoint_url.replace("http://", "http://me:secret@"))
        exercise(nginx_dav.open(url="http://dav.localhost"))
        asked: list[Request] = list(other.requests)
        assert all(request.target.startswith("http://dav.localhost/") for request in asked)
        assert {request.headers["proxy-authorization"] for request in asked} == {
            f"Basic {b64encode(b'me:secret').decode()}"
        }
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        exercise(nginx_dav.open(url=proxy.endpoint_url))
        assert other.requests == asked


@pytest.mark.parametrize(
    "settings",
    [
        {"token": "t", "username": "u", "password": "p"},
        {"username": "u"},
        {"password": "p"},
        {"username": "a:b", "password": "p"},
        {"token": "two\nlines"},
        {"client_key": "/k"},
        {"headers": {"Authorization": "Basic x"}},
        {"headers": {"Content-Range": "bytes 0-1/2"}},
        {"headers": {"X-A": "a\r\nX-B: b"}},
        {"headers": {"X A": "a"}},
        {"ca_path": "/no/such/file"},
    ],
)
def test_settings_that_cannot_be_meant_are_refused_without_repeating_them(settings: dict[str, Any]) -> None:
    with pytest.raises(VmferryError) as raised:
        open_store("https://localhost/x", settings)
    assert raised.value.kind == "invalid_config"
    assert raised.value.hint
    assert "lines" not in raised.value.message


def test_no_secret_is_in_what_the_settings_say_of_themselves(tmp_path: Path) -> None:
    from ansible_collections.vmferry.migrate.plugins.module_utils._stores.dav.settings import DavSettings

    said = repr(DavSettings(token="hunter2", password="hunter3", headers={"X-Key": "hunter4"}))
    assert "hunter" not in said


def test_certificates_of_the_rig_are_its_own(tmp_path: Path, nginx_dav: NginxDavRig) -> None:
    other = certificates(tmp_path, "localhost")
    assert error_of(nginx_dav.open(ca_path=str(other / "ca-cert.pem"))).kind == "network"
