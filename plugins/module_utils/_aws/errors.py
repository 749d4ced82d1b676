# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every service of AWS says alike of credentials and roles, and what botocore raises without any answer.

Codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html and
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, ContextManager, Dict, Optional, Sequence

from .._http.answers import CONNECTION_BROKE, Meaning, blotted, unreached

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

Translated = Callable[[str, Sequence[str]], ContextManager[None]]  # of what is done, and the secrets of it

_CREDENTIALS = "Check access_key, secret_key, session_token or profile."
_ROLE = "Check role_arn, external_id, and whom the role's trust policy lets assume it."
_ROLE_OPERATIONS = ("AssumeRole", "AssumeRoleWithWebIdentity")


def unauthenticated(reason: str, hint: str = _CREDENTIALS) -> Meaning:
    return "unauthenticated", reason, hint


BY_CREDENTIALS: Dict[str, Meaning] = {
    "InvalidAccessKeyId": unauthenticated("the access key is not known"),
    "SignatureDoesNotMatch": unauthenticated("the secret key does not match the access key"),
    "ExpiredToken": unauthenticated("the session token has expired", "Renew the credentials."),
    "InvalidToken": unauthenticated("the session token is not valid"),
    "TokenRefreshRequired": unauthenticated("the session token has to be renewed", "Renew the credentials."),
    "RequestTimeTooSkewed": unauthenticated("this machine's clock differs from the server's", "Set the clock."),
}
_THROTTLING = ("Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests", "SlowDown")


@dataclass(frozen=True)
class Said:
    """An answer that is an error."""

    operation: str
    code: str
    status: int
    message: str  # in one short line, without secrets
    retry_after: str

    @classmethod
    def of(cls, error: ClientError, secrets: Sequence[str]) -> Said:
        said = error.response.get("Error", {})
        about = error.response.get("ResponseMetadata", {})
        message = blotted(str(said.get("Message", "")), secrets)
        status = int(about.get("HTTPStatusCode", 0))
        wait = about.get("HTTPHeaders", {}).get("retry-after", "")
        return cls(error.operation_name, str(said.get("Code", "")), status, message, wait)

    @property
    def words(self) -> str:
        return f"{self.code or self.status} ({self.message})"


def refused_role(said: Said) -> Optional[Meaning]:
    """None where it was another request than the one for a role's credentials, or where it may be asked again."""
    if said.operation not in _ROLE_OPERATIONS or said.status >= 500 or said.code in _THROTTLING:
        return None
    return unauthenticated(f"STS refused it with {said.words}", _ROLE)


def unanswered(error: Exception, service: str, options: str) -> Meaning:
    """`service`: whose server it should be; `options`: in which the user said where it is."""
    from botocore import exceptions as sdk
    from botocore.parsers import ResponseParserError
    from urllib3 import exceptions as http

    if isinstance(error, sdk.NoCredentialsError):
        return unauthenticated("no credentials were found", "Give access_key and secret_key, or profile.")
    if isinstance(error, sdk.PartialCredentialsError):
        return unauthenticated("the credentials that were found are not complete")
    if isinstance(error, (sdk.CredentialRetrievalError, sdk.TokenRetrievalError, sdk.SSOError)):
        return unauthenticated("the credentials could not be obtained")
    if isinstance(error, sdk.ProfileNotFound):
        reason = f"the AWS profile {error.kwargs['profile']} does not exist"
        return "invalid_config", reason, "Check profile and the AWS configuration files."
    if no_answer := unreached(error):
        return no_answer
    if isinstance(error, (sdk.HTTPClientError, http.HTTPError, OSError, sdk.IncompleteReadError)):
        return CONNECTION_BROKE
    if isinstance(error, ResponseParserError):
        return "network", f"the answer was not {service}'s", f"Check that endpoint_url is an {service} server."
    if isinstance(error, (sdk.ParamValidationError, sdk.InvalidEndpointConfigurationError, sdk.InvalidRegionError)):
        return "invalid_config", f"botocore refused the request ({type(error).__name__})", f"Check {options}."
    return "internal", f"botocore raised {type(error).__name__}", ""
