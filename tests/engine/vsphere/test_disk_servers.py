# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which server of disks is trusted, how its name is reached, and who is told the session's cookie."""

from __future__ import annotations

import hashlib
import http.server
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.disk_servers import DiskServers
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.session import Session
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.settings import VsphereSettings
from rigs.connect_proxy import ConnectProxy
from rigs.ports import free_port
from rigs.vsphere import VSphere
from rigs.vsphere.certificates import Authority, Certificate

pytestmark = pytest.mark.slow
NAME = "esx1.test"
COOKIE = "vmware_soap_session"


class Host:
    """An ESXi host, as far as a client sees before it is trusted. `told`: the header lines of each request."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder, "of the hosts")
        self.certificate: Certificate = self.authority.issue("host", NAME)
        self.told: list[dict[str, str]] = []
        told = self.told

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                told.append({**self.headers, "path": self.path})
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_unused: Any) -> None:
                return

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *_unused: Any) -> None:
                return  # who does not trust it breaks off

        self._server = Server(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate.path, self.certificate.key)
        self._server.socket = context.wrap_socket(self._server.socket, True, do_handshake_on_connect=False)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def sha1(self) -> str:
        der = ssl.PEM_cert_to_DER_cert(self.certificate.path.read_text())
        return ":".join(f"{octet:02X}" for octet in hashlib.sha1(der).digest())

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    made = Host(tmp_path_factory.mktemp("host"))
    yield made
    made.close()


@pytest.fixture
def host(started: Host) -> Host:
    started.told.clear()
    return started


class Servers:
    """Connections with the settings of a task."""

    def __init__(self, settings: dict[str, Any]) -> None:
        known = VsphereSettings.from_options(settings)
        self.session = Session(known)
        self.servers = DiskServers(known, self.session)

    def get(self, url: str, thumbprint: str = "") -> int:
        connection, path = self.servers.connect(url, thumbprint)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        finally:
            connection.close()
            self.session.close()

    def refusal(self, url: str, thumbprint: str = "") -> VmferryError:
        with pytest.raises(VmferryError) as refused:
            self.get(url, thumbprint)
        return refused.value


@pytest.fixture
def mapped(settings: dict[str, Any], host: Host) -> dict[str, Any]:
    """Those of a task that pins the API's certificate."""
    return {**settings, "host_map": {NAME.upper(): f"127.0.0.1:{host.port}"}}


@pytest.fixture
def by_authority(mapped: dict[str, Any], vcenter: VSphere) -> dict[str, Any]:
    return {**mapped, "thumbprint": "", "ca_path": str(vcenter.certificate)}


URL = f"https://{NAME}/nfc/42/disk-0.vmdk?a=b"


def test_host_that_the_authority_vouches_for_is_trusted_without_a_thumbprint(
    by_authority: dict[str, Any], host: Host
) -> None:
    assert Servers({**by_authority, "ca_path": str(host.authority.path)}).get(URL) == 200
    assert (host.told[0]["Host"], host.told[0]["path"]) == (NAME, "/nfc/42/disk-0.vmdk?a=b")


def test_host_of_another_authority_is_trusted_by_the_thumbprint_that_the_lease_tells(
    mapped: dict[str, Any], by_authority: dict[str, Any], host: Host
) -> None:
    for settings in (mapped, by_authority):
        for told in (host.sha1, host.certificate.sha256):
            assert Servers(settings).get(URL, told) == 200


@pytest.mark.parametrize("thumbprint", ["", "AB:" * 19 + "AB", "ab" * 32, "ab"])
@pytest.mark.parametrize("pins", [True, False])
def test_host_that_nobody_vouches_for_is_refused_before_anything_is_sent(
    mapped: dict[str, Any], by_authority: dict[str, Any], host: Host, thumbprint: str, pins: bool
) -> None:
    refused = Servers(mapped if pins else by_authority).refusal(URL, thumbprint)
    assert (refused.kind, refused.retryable) == ("network", False)
    assert f"{NAME}:443" in refused.message
    assert "vsphere.ca_path" in refused.hint
    assert host.told == []


def test_an_authority_that_vouches_makes_up_for_a_thumbprint_that_is_old(
    by_authority: dict[str, Any], host: Host
) -> None:
    assert Servers({**by_authority, "ca_path": str(host.authority.path)}).get(URL, "AB:" * 19 + "AB") == 200


def test_certificate_of_an_authority_must_be_made_for_the_name_that_the_lease_has(
    by_authority: dict[str, Any], host: Host
) -> None:
    given = {"ca_path": str(host.authority.path), "host_map": {"esx2.test": f"127.0.0.1:{host.port}"}}
    refused = Servers({**by_authority, **given}).refusal("https://esx2.test/nfc/42/disk-0.vmdk")
    assert "esx2.test" in refused.message
    assert host.told == []


def test_no_certificate_is_looked_at_only_where_that_is_asked(by_authority: dict[str, Any], host: Host) -> None:
    del by_authority["ca_path"]
    assert Servers({**by_authority, "validate_certs": False}).get(URL, "ab" * 20) == 200


def test_pin_of_the_api_is_none_of_the_hosts(mapped: dict[str, Any], host: Host) -> None:
    pinned = {**mapped, "thumbprint": host.certificate.sha256, "validate_certs": False}
    assert Servers(pinned).refusal(URL).kind == "network"
    assert host.told == []


def test_cookie_goes_to_the_server_of_the_api_alone(mapped: dict[str, Any], host: Host, vcenter: VSphere) -> None:
    assert Servers(mapped).get(URL, host.sha1) == 200
    assert not any("cookie" in name.lower() or COOKIE in value for name, value in host.told[0].items())
    folder = f"{vcenter.url}/folder/nothing?dcPath=DC0&dsName=LocalDS_0"
    assert Servers(mapped).get(folder) == 404  # 401 without it
    assert Servers(mapped).get(folder.replace(f"{vcenter.host}:{vcenter.port}", "*")) == 404


def test_no_host_is_that_of_the_api_with_its_trust(mapped: dict[str, Any], vcenter: VSphere) -> None:
    assert Servers(mapped).get("https://*/nfc/42/disk-0.vmdk") == 404
    refused = Servers({**mapped, "thumbprint": "ab" * 32}).refusal("https://*/nfc/42/disk-0.vmdk", "cd" * 32)
    assert "not the one that is pinned" in refused.message


def test_hosts_are_reached_through_the_proxy_too(mapped: dict[str, Any], host: Host) -> None:
    with ConnectProxy(("127.0.0.1", host.port)) as proxy:
        by_proxy = {**mapped, "host_map": {}, "proxy_host": "127.0.0.1", "proxy_port": proxy.port}
        assert Servers(by_proxy).get(URL, host.sha1) == 200
    assert proxy.asked == [f"{NAME}:443"]
    assert host.told[0]["Host"] == NAME


def test_host_that_is_not_reached_is_told_with_what_to_do(mapped: dict[str, Any]) -> None:
    refused = Servers({**mapped, "host_map": {NAME: f"127.0.0.1:{free_port()}"}}).refusal(URL)
    assert (refused.kind, refused.retryable) == ("network", True)
    assert NAME in refused.message
    assert "vsphere.host_map" in refused.hint


def test_disks_are_not_read_without_encryption(mapped: dict[str, Any], host: Host) -> None:
    refused = Servers(mapped).refusal(f"http://{NAME}:{host.port}/nfc/42/disk-0.vmdk")
    assert (refused.kind, host.told) == ("unsupported", [])
