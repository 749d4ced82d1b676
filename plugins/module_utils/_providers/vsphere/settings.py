# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to reach a vCenter or an ESXi host: the settings of a task, read once and refused where they cannot be meant."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Mapping, Tuple
from urllib.parse import parse_qs, urlsplit

from ..._errors import VmferryError

NAMES = (
    "hostname",
    "port",
    "username",
    "password",
    "validate_certs",
    "ca_path",
    "thumbprint",
    "proxy_host",
    "proxy_port",
    "host_map",
    "vddk_libdir",
    "nbd_uri",
)
HTTPS = 443
HIGHEST_PORT = 65535
NBD_NAMES = ("vm", "snapshot", "key", "file")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class VsphereSettings:
    hostname: str
    username: str
    password: str = field(repr=False)
    port: int = HTTPS
    validate_certs: bool = True
    ca_path: str = ""
    thumbprint: str = ""  # SHA-256, 64 hex digits in lower case
    proxy_host: str = ""
    proxy_port: int = 0
    host_map: Mapping[str, str] = field(default_factory=dict, hash=False)  # by the name of a server of disks
    vddk_libdir: str = ""
    nbd_uri: str = ""  # with names to be filled in: {vm}, {snapshot}, {key}, {file}

    @property
    def address(self) -> str:
        """For people."""
        host = f"[{self.hostname}]" if ":" in self.hostname else self.hostname
        return host if self.port == HTTPS else f"{host}:{self.port}"

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> VsphereSettings:
        """Raises `invalid_config`."""
        unknown = sorted(set(options) - set(NAMES))
        if unknown:
            raise _invalid(f"vsphere has no setting {', '.join(unknown)}.", f"Known are {', '.join(NAMES)}.")
        for name in ("hostname", "username", "password"):
            if not options.get(name):
                raise _invalid(f"vsphere.{name} is not set.", "Set it, or the environment variable that stands for it.")
        hostname, port_of_it = host_and_port(str(options["hostname"]))
        port = _port("port", options.get("port"))
        if port and port_of_it and port != port_of_it:
            raise _invalid(
                f"vsphere.hostname says port {port_of_it}, and vsphere.port {port}.", "Leave one of them out."
            )
        settings = cls(
            hostname=hostname,
            username=str(options["username"]),
            password=str(options["password"]),
            port=port or port_of_it or HTTPS,
            validate_certs=bool(options.get("validate_certs", True)),
            ca_path=str(options.get("ca_path") or ""),
            thumbprint=_thumbprint(str(options.get("thumbprint") or "")),
            proxy_host=str(options.get("proxy_host") or ""),
            proxy_port=_port("proxy_port", options.get("proxy_port")),
            host_map=_host_map(options.get("host_map") or {}),
            vddk_libdir=str(options.get("vddk_libdir") or ""),
            nbd_uri=_nbd_uri(str(options.get("nbd_uri") or "")),
        )
        if settings.vddk_libdir and settings.nbd_uri:
            raise _invalid("Both vsphere.vddk_libdir and vsphere.nbd_uri are set.", "Leave one of them out.")
        if settings.ca_path and not settings.validate_certs:
            raise _invalid(
                "vsphere.ca_path is given, and vsphere.validate_certs says that no certificate is verified.",
                "Leave one of them out.",
            )
        if bool(settings.proxy_host) != bool(settings.proxy_port):
            raise _invalid("Only one of vsphere.proxy_host and vsphere.proxy_port is set.", "Set both, or none.")
        return settings


def _host_map(given: Mapping[str, Any]) -> Mapping[str, str]:
    for name, address in given.items():
        if not name or not address:
            raise _invalid(
                "vsphere.host_map has a name or an address that is empty.", "Give each name of a host its address."
            )
        host_and_port(str(address), "host_map")
    return {str(name).lower(): str(address) for name, address in given.items()}


def host_and_port(text: str, setting: str = "hostname") -> Tuple[str, int]:
    """Of a name or an address, with a port or without (0); also as a URL, which is how GOVC_URL says it."""
    if text.count(":") > 1 and not text.startswith("[") and "://" not in text:
        return text, 0  # a bare IPv6 address
    if "@" in text:  # not quoted: what stands before it may be a password
        raise _invalid(f"vsphere.{setting} names a user.", "Set vsphere.username and vsphere.password instead.")
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        port = parts.port or 0
    except ValueError as error:
        hint = f"Write vcenter.example.com:8443, for example; a port is 1 to {HIGHEST_PORT}."
        raise _invalid(f"vsphere.{setting} {text} has a port or an address that is none.", hint) from error
    if parts.scheme != "https" or not parts.hostname or any(sign.isspace() for sign in parts.hostname):
        raise _invalid(f"vsphere.{setting} {text} is no host's name.", "Write vcenter.example.com, for example.")
    return parts.hostname, port


def _port(name: str, value: Any) -> int:
    if value is None:
        return 0
    port = int(value)
    if not 1 <= port <= HIGHEST_PORT:
        raise _invalid(f"vsphere.{name} {port} is no port.", f"Give 1 to {HIGHEST_PORT}.")
    return port


def _thumbprint(text: str) -> str:
    digest = re.sub(r"[:\s]", "", text).lower()
    if digest and not _DIGEST.fullmatch(digest):
        hint = "Give the SHA-256 of the certificate: 64 hex digits, with or without colons between them."
        raise _invalid(f"vsphere.thumbprint {text} is no SHA-256 thumbprint.", hint)
    return digest


def _nbd_uri(text: str) -> str:
    """A server that is not told which snapshot might show any state of the disk."""
    if not text:
        return ""
    unknown = [name for name in re.findall(r"\{([^}]*)\}", text) if name not in NBD_NAMES]
    if unknown or "{snapshot}" not in text or ("{key}" not in text and "{file}" not in text):
        known = ", ".join(f"{{{name}}}" for name in NBD_NAMES)
        hint = f"Known are {known}; {{snapshot}} has to be there, and {{key}} or {{file}}, which tell the disk."
        raise _invalid(f"vsphere.nbd_uri {text} does not say which disk of which snapshot it is.", hint)
    filled = re.sub(r"\{[^}]*\}", "x", text)
    hint = "Write nbd://backup-proxy/{snapshot}/{key} or nbd+unix:///{snapshot}/{key}?socket=/run/disks, for example."
    try:
        parts = urlsplit(filled)
        reachable = parts.hostname if parts.scheme == "nbd" else parse_qs(parts.query).get("socket")
        known_port = parts.port is None or parts.port >= 1
    except ValueError as error:
        raise _invalid(f"vsphere.nbd_uri {text} has a port or an address that is none.", hint) from error
    if parts.scheme not in ("nbd", "nbd+unix") or not reachable or not known_port:
        raise _invalid(f"vsphere.nbd_uri {text} is no URI of an NBD server, nbd or nbd+unix.", hint)
    return text


def _invalid(message: str, hint: str) -> VmferryError:
    return VmferryError("invalid_config", message, hint)
