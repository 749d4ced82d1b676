# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A boto3 session from a task's credentials, of which the clients of every service are made."""

from __future__ import annotations

from typing import Any, Mapping, Optional, Tuple, Union

from .._errors import VmferryError
from .credentials import AwsCredentials
from .errors import Translated
from .models import Models


def open_session(
    credentials: AwsCredentials,
    region: Optional[str],
    verify: Union[str, bool, None],
    config: Mapping[str, Any],
    translated: Translated,
    needed_by: str,
    models: Optional[Models] = None,
) -> Tuple[Any, str]:
    """The session, and the region that was given or that the environment or a profile names: '' where none does.

    Nothing is sent before the first request, not to STS either. `verify`, `config`: of clients, as boto3 takes them.
    `translated` says in the task's words what goes wrong, `needed_by` who needs boto3 where it is missing. `models`:
    what its clients know of services, if not all.
    """
    try:
        import boto3
        import botocore.session
    except ImportError as error:
        raise VmferryError(
            "unsupported", f"{needed_by} needs the Python package boto3.", "Install boto3 where the task runs."
        ) from error

    with translated("Preparing the AWS session", credentials.secrets):
        core = botocore.session.Session(profile=credentials.profile)
        known = (models or Models()).of(core)
        core.register_component("data_loader", known)
        session = boto3.Session(
            botocore_session=core,
            aws_access_key_id=credentials.access_key,
            aws_secret_access_key=credentials.secret_key,
            aws_session_token=credentials.session_token,
            region_name=region,
        )
        found = session.region_name or ""
        if credentials.role_arn:
            from .roles import assume_role

            session = assume_role(session, found, credentials, verify, config, translated, known)
    return session, found
