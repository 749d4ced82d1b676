# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control node's access key of AWS, and what belongs to it. Profiles, which are files of the control node, stay."""

from __future__ import annotations

from collections.abc import Collection, Mapping

# Suboptions, of which a task that gives one has chosen, and the variables that the module reads where nothing is handed
# over; likewise.
CREDENTIALS = frozenset({"profile", "access_key", "secret_key", "session_token", "web_identity_token_file"})
OF_THE_HOST = frozenset(
    {
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_PROFILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
    }
)
WANTED = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY there, or aws.access_key and secret_key in the task."
# An account's region and server belong to its keys: the names in order of preference, as the module's fallbacks.
_COMPANIONS = {"session_token": ("AWS_SESSION_TOKEN",), "region": ("AWS_REGION", "AWS_DEFAULT_REGION")}
OF_EVERY_SERVICE = ("AWS_ENDPOINT_URL",)
OF_S3 = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


def keys_of(environment: Mapping[str, str], endpoints: Collection[str]) -> dict[str, str]:
    """`endpoints`: variables that may name the service's server. Nothing where there is no whole key."""
    access_key, secret_key = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
    if not access_key or not secret_key:
        return {}
    found = {"access_key": access_key, "secret_key": secret_key}
    for option, names in {**_COMPANIONS, "endpoint_url": endpoints}.items():
        value = next((environment[name] for name in names if environment.get(name)), None)
        if value is not None:
            found[option] = value
    return found


def credentials(environment: Mapping[str, str], said: Collection[str]) -> dict[str, str]:
    """Of an account that has VMs. `said`: the suboptions that the task gives."""
    return keys_of(environment, OF_EVERY_SERVICE)


def credentials_of_s3(environment: Mapping[str, str]) -> dict[str, str]:
    return keys_of(environment, OF_S3)
