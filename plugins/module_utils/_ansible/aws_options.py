# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who a task is to AWS, for its S3 stores as for its VMs: options named as in amazon.aws, filled in from the SDK's
variables. And how to reach EC2."""

from __future__ import annotations

from typing import Any, Collection, Mapping

from ansible.module_utils.common.parameters import env_fallback

from .argspec import without_unset

CREDENTIALS = frozenset({"profile", "access_key", "secret_key", "session_token", "web_identity_token_file"})


def credential_options() -> dict[str, dict[str, Any]]:
    return {
        "region": {"type": "str", "fallback": (env_fallback, ["AWS_REGION", "AWS_DEFAULT_REGION"])},
        "profile": {"type": "str", "fallback": (env_fallback, ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"])},
        # An access key's id is no secret, and masking a word like `backup` would mask it in URLs and VM names too.
        "access_key": {"type": "str", "no_log": False, "fallback": (env_fallback, ["AWS_ACCESS_KEY_ID"])},
        "secret_key": {"type": "str", "no_log": True, "fallback": (env_fallback, ["AWS_SECRET_ACCESS_KEY"])},
        "session_token": {"type": "str", "no_log": True, "fallback": (env_fallback, ["AWS_SESSION_TOKEN"])},
        # Without fallbacks: where nothing is given, AWS_ROLE_ARN and what belongs to it are the SDK's own to find.
        "role_arn": {"type": "str"},
        "role_session_name": {"type": "str"},
        "external_id": {"type": "str"},
        "web_identity_token_file": {"type": "path", "no_log": False},
        "sts_endpoint_url": {"type": "str", "fallback": (env_fallback, ["AWS_ENDPOINT_URL_STS"])},
    }


def aws_options() -> dict[str, dict[str, Any]]:
    return {
        "aws": {
            "type": "dict",
            "apply_defaults": True,  # or the environment is not asked when the whole dict is left out
            "options": {
                **credential_options(),
                # Without a fallback: the SDK reads AWS_ENDPOINT_URL_EC2, AWS_ENDPOINT_URL_EBS and AWS_ENDPOINT_URL.
                "endpoint_url": {"type": "str"},
                "validate_certs": {"type": "bool", "default": True},
                "ca_path": {"type": "path", "fallback": (env_fallback, ["AWS_CA_BUNDLE"])},
            },
        },
    }


def aws_settings(values: Mapping[str, Any], said: Collection[str]) -> dict[str, Any]:
    """`said`: what the task itself gives."""
    settings = one_set_of_credentials(values, said)
    if not settings["validate_certs"] and "ca_path" not in said:
        settings["ca_path"] = None  # of the environment
    return without_unset(settings)


def one_set_of_credentials(settings: Mapping[str, Any], given: Collection[str]) -> dict[str, Any]:
    """Never half from the task and half from the environment: a task's key with a stray session token is refused by
    every server, with an error that does not say why. As in the AWS SDKs, the environment's keys come before its
    profile."""
    kept = dict(settings)
    said = CREDENTIALS & set(given)
    if said or kept.get("anonymous"):
        kept.update(dict.fromkeys(CREDENTIALS - said))
    elif kept["access_key"]:
        kept["profile"] = None
    elif kept["profile"]:
        kept["secret_key"] = kept["session_token"] = None  # of a key that is not there
    return kept
