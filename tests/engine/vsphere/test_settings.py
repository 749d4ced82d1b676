# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a connection may be written, and what cannot be meant."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.open import open_provider
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.settings import VsphereSettings

LEAST = {"hostname": "vc.example.com", "username": "backup", "password": "not so open"}


def settings(**given: Any) -> VsphereSettings:
    return VsphereSettings.from_options({**LEAST, **given})


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("vc.example.com", "vc.example.com", 443),
        ("vc.example.com:8443", "vc.example.com", 8443),
        ("https://vc.example.com/sdk", "vc.example.com", 443),
        ("https://vc.example.com:8443/sdk", "vc.example.com", 8443),
        ("192.0.2.7", "192.0.2.7", 443),
        ("2001:db8::7", "2001:db8::7", 443),
        ("[2001:db8::7]:8443", "2001:db8::7", 8443),
    ],
)
def test_host_may_be_written_in_any_usual_way(text: str, host: str, port: int) -> None:
    found = settings(hostname=text)
    assert (found.hostname, found.port) == (host, port)


def test_address_is_as_short_as_it_can_be() -> None:
    assert settings().address == "vc.example.com"
    assert settings(port=8443).address == "vc.example.com:8443"
    assert settings(hostname="2001:db8::7", port=8443).address == "[2001:db8::7]:8443"


@pytest.mark.parametrize("text", ["AB" * 32, ":".join(["aB"] * 32), " ".join(["ab"] * 32)])
def test_thumbprint_may_be_written_in_any_usual_way(text: str) -> None:
    assert settings(thumbprint=text).thumbprint == "ab" * 32


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"hostname": ""}, "vsphere.hostname"),
        ({"username": None}, "vsphere.username"),
        ({"password": ""}, "vsphere.password"),
        ({"hostname": "http://vc.example.com"}, "vsphere.hostname"),
        ({"hostname": "vc.example.com:no"}, "vsphere.hostname"),
        ({"hostname": "vc example"}, "vsphere.hostname"),
        ({"hostname": "vc.example.com:8443", "port": 443}, "vsphere.port"),
        ({"port": 0}, "vsphere.port"),
        ({"port": 65536}, "vsphere.port"),
        ({"proxy_port": -1, "proxy_host": "proxy"}, "vsphere.proxy_port"),
        ({"proxy_host": "proxy"}, "vsphere.proxy_port"),
        ({"proxy_port": 3128}, "vsphere.proxy_host"),
        ({"hostname": "https://[vc.example.com"}, "vsphere.hostname"),
        ({"ca_path": "/etc/ssl/lab.pem", "validate_certs": False}, "vsphere.ca_path"),
        ({"thumbprint": "ab" * 20}, "SHA-256"),
        ({"thumbprint": "xy" * 32}, "SHA-256"),
        ({"datacenter": "DC0"}, "datacenter"),
        ({"host_map": {"esx1": ""}}, "vsphere.host_map"),
        ({"nbd_uri": "nbd://proxy/{key}"}, "which snapshot"),
        ({"nbd_uri": "nbd://proxy/{snapshot}"}, "which disk"),
        ({"nbd_uri": "nbd://proxy/{snapshot}/{key}/{host}"}, "which disk"),
        ({"nbd_uri": "http://proxy/{snapshot}/{key}"}, "is no URI of an NBD server"),
        ({"nbd_uri": "nbd:///{snapshot}/{key}"}, "is no URI of an NBD server"),
        ({"nbd_uri": "nbd://proxy:0/{snapshot}/{key}"}, "is no URI of an NBD server"),
        ({"nbd_uri": "nbd://proxy:port/{snapshot}/{key}"}, "a port or an address that is none"),
        ({"nbd_uri": "nbd+unix:///{snapshot}/{key}"}, "is no URI of an NBD server"),
        ({"nbd_uri": "nbd://proxy/{snapshot}/{key}", "vddk_libdir": "/opt/vddk"}, "Both"),
        ({"host_map": {"": "192.0.2.7"}}, "vsphere.host_map"),
        ({"host_map": {"esx1": "192.0.2.7:no"}}, "vsphere.host_map"),
    ],
)
def test_what_cannot_be_meant_is_refused(given: dict[str, Any], named: str) -> None:
    with pytest.raises(VmferryError, match=named) as refused:
        open_provider("vsphere", {**LEAST, **given})
    assert (refused.value.kind, bool(refused.value.hint)) == ("invalid_config", True)


@pytest.mark.parametrize("sign", ["", "#", "/", "?"])
def test_a_user_in_the_host_is_refused_without_showing_what_stands_there(sign: str) -> None:
    with pytest.raises(VmferryError, match="names a user") as refused:
        settings(hostname=f"https://root:known-to-few{sign}1@vc.example.com/sdk")
    assert "known-to-few" not in f"{refused.value.message} {refused.value.hint}"


def test_account_is_the_server_that_slots_are_counted_for() -> None:
    assert open_provider("vsphere", LEAST).account == "vsphere vc.example.com"
