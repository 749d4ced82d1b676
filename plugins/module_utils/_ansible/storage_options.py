# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where exports live, and how to get in."""

from __future__ import annotations

from typing import Any, Collection, Mapping
from urllib.parse import urlsplit

from ansible.module_utils.basic import env_fallback

from .._operations.requests import StoreSpec
from .argspec import ArgumentSpec, TaskArguments, invalid, without_unset
from .values import duration, file_mode

ACCESS_KEYS = frozenset({"access_key", "secret_key", "session_token"})


def storage_arguments() -> ArgumentSpec:
    return ArgumentSpec(
        {
            "url": {"type": "str", "required": True},
            "storage": {
                "type": "dict",
                "apply_defaults": True,  # or the environment is not asked when the whole dict is left out
                "options": {**_s3_options(), **_file_options()},
                "required_if": [("sse", "aws:kms:dsse", ("sse_kms_key_id",))],
            },
        }
    )


def _s3_options() -> dict[str, dict[str, Any]]:
    return {
        "endpoint_url": {"type": "str", "fallback": (env_fallback, ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])},
        "region": {"type": "str", "fallback": (env_fallback, ["AWS_REGION", "AWS_DEFAULT_REGION"])},
        "profile": {"type": "str", "fallback": (env_fallback, ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"])},
        # An access key's id is no secret, and masking a word like `backup` would mask it in URLs and VM names too.
        "access_key": {"type": "str", "no_log": False, "fallback": (env_fallback, ["AWS_ACCESS_KEY_ID"])},
        "secret_key": {"type": "str", "no_log": True, "fallback": (env_fallback, ["AWS_SECRET_ACCESS_KEY"])},
        "session_token": {"type": "str", "no_log": True, "fallback": (env_fallback, ["AWS_SESSION_TOKEN"])},
        "addressing_style": {"type": "str", "choices": ["auto", "path", "virtual"], "default": "auto"},
        "validate_certs": {"type": "bool", "default": True},
        "ca_path": {"type": "path", "fallback": (env_fallback, ["AWS_CA_BUNDLE"])},
        "connect_timeout": {"type": "str", "default": "60s"},
        "sse": {"type": "str", "choices": ["AES256", "aws:kms", "aws:kms:dsse"]},
        "sse_kms_key_id": {"type": "str", "no_log": False},
        "sse_customer_key": {"type": "str", "no_log": True},
    }


def _file_options() -> dict[str, dict[str, Any]]:
    return {
        "file_mode": {"type": "raw", "default": "0600"},
        "file_owner": {"type": "str"},
        "file_group": {"type": "str"},
    }


def store_spec(arguments: TaskArguments) -> StoreSpec:
    settings = one_set_of_credentials(arguments["storage"], arguments.given_suboptions("storage"))
    settings["connect_timeout"] = duration("storage.connect_timeout", settings["connect_timeout"])
    settings["file_mode"] = file_mode("storage.file_mode", settings["file_mode"])
    if settings["sse"] and settings["sse_customer_key"]:
        raise invalid(
            "storage.sse and storage.sse_customer_key exclude each other: either the server has the key, or you do.",
            "Leave one of them out.",
        )
    return StoreSpec(_plain_url(arguments["url"]), without_unset(settings))


def one_set_of_credentials(settings: Mapping[str, Any], given: Collection[str]) -> dict[str, Any]:
    """Never half from the task and half from the environment: a task's key with a stray session token is refused by
    every server, with an error that does not say why. As in the AWS SDKs, the environment's keys come before its
    profile."""
    kept = dict(settings)
    said = ACCESS_KEYS & set(given)
    if said and "profile" in given:
        raise invalid(
            f"storage.profile and storage.{min(said)} exclude each other.", "Give a profile or access keys, not both."
        )
    if "profile" in given:
        dropped = set(ACCESS_KEYS)
    elif said:
        dropped = (ACCESS_KEYS | {"profile"}) - said
    else:
        dropped = {"profile"} if kept["access_key"] else set()
    kept.update(dict.fromkeys(dropped))
    if bool(kept["access_key"]) != bool(kept["secret_key"]):
        raise invalid("storage.access_key and storage.secret_key come as a pair.", "Give both of them, or neither.")
    return kept


def _plain_url(url: str) -> str:
    if urlsplit(url).password is not None:
        raise invalid("url carries a password, which would show in logs and results.", "Put it under storage.")
    return url
