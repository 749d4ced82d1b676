# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A secret that is sent as it is, a token, a password or a key, goes over TLS. A signature made with one need not."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from .._errors import VmferryError


def refuse_in_clear(url: str, what: str) -> None:
    """Before anything is sent. `what`: the secret that requests to `url` carry. Raises `invalid_config`."""
    parts = urlsplit(url)
    if parts.scheme != "http" or _is_this_host(parts.hostname or ""):
        return
    raise VmferryError(
        "invalid_config",
        f"{what} would be sent to {parts.hostname} without TLS, and whoever listens could use it.",
        "Write https://. With validate_certs: false, or with ca_path, a certificate of your own will do.",
    )


def _is_this_host(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761, 6.3
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
