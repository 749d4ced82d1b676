# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where exports live, and how to get in."""

from __future__ import annotations

from typing import Any, Collection, Mapping

from ansible.module_utils.common.parameters import env_fallback

from .._operations.requests import StoreSpec
from .argspec import ArgumentSpec, TaskArguments, without_unset
from .values import duration, file_mode

CREDENTIALS = frozenset({"profile", "access_key", "secret_key", "session_token"})


def storage_arguments(*, required: bool = True) -> ArgumentSpec:
    return ArgumentSpec(
        {
            "url": {"type": "str", **({"required": True} if required else {})},
            "storage": {
                "type": "dict",
                "apply_defaults": True,  # or the environment is not asked when the whole dict is left out
                "options": {**_s3_options(), **_file_options()},
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
        "sse": {"type": "str", "choices": ["none", "AES256", "aws:kms"], "default": "none"},
        "sse_kms_key_id": {"type": "str", "no_log": False},
        "sse_customer_key": {"type": "str", "no_log": True},
    }


def _file_options() -> dict[str, dict[str, Any]]:
    return {
        "file_mode": {"type": "raw", "default": "0600"},
        "file_owner": {"type": "str"},
        "file_group": {"type": "str"},
    }


def optional_store(arguments: TaskArguments) -> StoreSpec | None:
    return store_spec(arguments) if arguments["url"] else None


def store_spec(arguments: TaskArguments) -> StoreSpec:
    """Whether the settings go together is the store's to say; only it knows which of them it looks at."""
    settings = one_set_of_credentials(arguments["storage"], arguments.given_suboptions("storage"))
    settings["connect_timeout"] = duration("storage.connect_timeout", settings["connect_timeout"])
    settings["mode"] = file_mode("storage.file_mode", settings.pop("file_mode"))
    settings["owner"], settings["group"] = settings.pop("file_owner"), settings.pop("file_group")
    return StoreSpec(arguments["url"], without_unset(settings))


def one_set_of_credentials(settings: Mapping[str, Any], given: Collection[str]) -> dict[str, Any]:
    """Never half from the task and half from the environment: a task's key with a stray session token is refused by
    every server, with an error that does not say why. As in the AWS SDKs, the environment's keys come before its
    profile."""
    kept = dict(settings)
    said = CREDENTIALS & set(given)
    if said:
        kept.update(dict.fromkeys(CREDENTIALS - said))
    elif kept["access_key"]:
        kept["profile"] = None
    elif kept["profile"]:
        kept["secret_key"] = kept["session_token"] = None  # of a key that is not there
    return kept
