# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Credentials of a role, asked for again before they expire: an export may take longer than they last.

https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html and API_AssumeRoleWithWebIdentity.html
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Dict, Mapping, Union

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
    models: Any,
) -> Any:
    """A boto3 session whose credentials are the role's. Nothing is asked of STS before the first request.

    `session` has the credentials that may assume it. Where the token of another identity provider is what counts, it
    is read anew each time, since whoever wrote the file replaces it. `config`: of the client. `models`: botocore's
    loader, of which the new session makes its clients, too.
    """
    import boto3
    import botocore.session
    from botocore.credentials import CredentialResolver

    inner = botocore.session.Session(profile=credentials.profile)
    provider: Any = _Role(session, region or _ANY_REGION, credentials, verify, config, translated)
    inner.register_component("data_loader", models)
    inner.register_component("credential_provider", CredentialResolver([provider]))
    return boto3.Session(botocore_session=inner, region_name=region or None)


@dataclass(frozen=True)
class _Role:
    """Plays botocore's CredentialProvider."""

    METHOD: ClassVar[str] = "assume-role"

    session: Any
    region: str
    credentials: AwsCredentials
    verify: Union[str, bool, None]
    config: Mapping[str, Any]
    translated: Translated

    def load(self) -> Any:
        from botocore.credentials import DeferredRefreshableCredentials

        return DeferredRefreshableCredentials(self._ask, self.METHOD)

    def _ask(self) -> Dict[str, Any]:
        mine = self.credentials
        token = _token(mine.web_identity_token_file) if mine.web_identity_token_file else ""
        asked = {"RoleArn": mine.role_arn, "RoleSessionName": mine.role_session_name or SESSION_NAME}
        if mine.external_id:
            asked["ExternalId"] = mine.external_id
        with self.translated(f"Assuming the role {mine.role_arn}", [*mine.secrets, *([token] if token else [])]):
            client = self._sts()
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

    def _sts(self) -> Any:
        from botocore import UNSIGNED
        from botocore.config import Config

        unsigned = {"signature_version": UNSIGNED} if self.credentials.web_identity_token_file else {}
        return self.session.client(
            "sts",
            region_name=self.region,
            endpoint_url=self.credentials.sts_endpoint_url,
            verify=self.verify,
            config=Config(**known_to(Config, self.config), **unsigned),
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
