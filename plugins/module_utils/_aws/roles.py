# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Credentials of a role, asked for again before they expire: an export may take longer than they last.

https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html and API_AssumeRoleWithWebIdentity.html
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping, Union

from .._errors import VmferryError
from .client_config import known_to
from .credentials import AwsCredentials

if TYPE_CHECKING:
    from .errors import Translated

SESSION_NAME = "vmferry"  # shown in the account's audit log
_ANY_REGION = "us-east-1"  # STS answers for every region from each
_LONGEST_TOKEN = 64 * 1024  # bytes; what STS takes is 20,000


def assume_role(
    session: Any,
    region: str,
    credentials: AwsCredentials,
    verify: Union[str, bool, None],
    config: Mapping[str, Any],
    translated: Translated,
) -> Any:
    """A boto3 session whose credentials are the role's. Nothing is asked of STS before the first request.

    `session` has the credentials that may assume it. Where the token of another identity provider is what counts, it
    is read anew each time, since whoever wrote the file replaces it. `config`: of the client.
    """
    import boto3
    import botocore.session
    from botocore.credentials import CredentialResolver

    inner = botocore.session.Session(profile=credentials.profile)
    ask = _asking(session, region or _ANY_REGION, credentials, verify, config, translated)
    provider: Any = _Provider(ask)
    inner.register_component("credential_provider", CredentialResolver([provider]))
    return boto3.Session(botocore_session=inner, region_name=region or None)


class _Provider:
    METHOD = "assume-role"

    def __init__(self, ask: Callable[[], Dict[str, Any]]) -> None:
        self._ask = ask

    def load(self) -> Any:
        from botocore.credentials import DeferredRefreshableCredentials

        return DeferredRefreshableCredentials(self._ask, self.METHOD)


def _asking(
    session: Any,
    region: str,
    credentials: AwsCredentials,
    verify: Union[str, bool, None],
    config: Mapping[str, Any],
    translated: Translated,
) -> Callable[[], Dict[str, Any]]:
    asked = {"RoleArn": credentials.role_arn, "RoleSessionName": credentials.role_session_name or SESSION_NAME}
    if credentials.external_id:
        asked["ExternalId"] = credentials.external_id
    token_file = credentials.web_identity_token_file

    def ask() -> Dict[str, Any]:
        token = _token(token_file) if token_file else ""
        secrets = [*credentials.secrets, *([token] if token else [])]
        with translated(f"Assuming the role {credentials.role_arn}", secrets):
            client = _sts(session, region, credentials, verify, config)
            try:
                if token:
                    answer = client.assume_role_with_web_identity(**asked, WebIdentityToken=token)
                else:
                    answer = client.assume_role(**asked)
            finally:
                client.close()
        given = answer["Credentials"]
        return {
            "access_key": given["AccessKeyId"],
            "secret_key": given["SecretAccessKey"],
            "token": given["SessionToken"],
            "expiry_time": given["Expiration"].isoformat(),
        }

    return ask


def _sts(
    session: Any,
    region: str,
    credentials: AwsCredentials,
    verify: Union[str, bool, None],
    config: Mapping[str, Any],
) -> Any:
    from botocore import UNSIGNED
    from botocore.config import Config

    unsigned = {"signature_version": UNSIGNED} if credentials.web_identity_token_file else {}
    return session.client(
        "sts",
        region_name=region,
        endpoint_url=credentials.sts_endpoint_url,
        verify=verify,
        config=Config(**known_to(Config, config), **unsigned),
    )


def _token(path: str) -> str:
    try:
        with Path(path).open(encoding="ascii") as file:
            return file.read(_LONGEST_TOKEN).strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it holds no token"
        raise VmferryError(
            "unauthenticated",
            f"The option web_identity_token_file {path} cannot be read ({why}).",
            "Give a file on the host that runs the task, and let the user that runs it read it.",
        ) from error
