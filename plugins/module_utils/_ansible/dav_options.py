# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to reach an http:// or https:// store, and what answers there."""

from __future__ import annotations

from typing import Any, Collection, Mapping

from .azure_options import is_azure_url

TYPES = ("auto", "azure", "file", "gcs", "http", "nfs", "s3")


def dav_options() -> dict[str, dict[str, Any]]:
    return {
        "type": {"type": "str", "choices": list(TYPES), "default": "auto"},
        "token": {"type": "str", "no_log": True},
        "username": {"type": "str"},
        "password": {"type": "str", "no_log": True},
        "headers": {"type": "dict", "no_log": True},
        "client_cert": {"type": "path"},
        "client_key": {"type": "path", "no_log": False},  # the name of a file
    }


def speaks_http(url: str, settings: Mapping[str, Any]) -> bool:
    """Whether it is neither a folder nor another service, whatever protocol that speaks."""
    kind = settings.get("type")
    is_http = kind == "http" or (kind in (None, "auto") and not is_azure_url(url, kind))
    return url.startswith(("http://", "https://")) and is_http


def as_meant_for_http(url: str, settings: Mapping[str, Any], given: Collection[str]) -> dict[str, Any]:
    """The authorities that the environment names for AWS are no other server's."""
    kept = dict(settings)
    if speaks_http(url, settings) and "ca_path" not in given:
        kept["ca_path"] = None
    return kept
