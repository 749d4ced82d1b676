# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Azure and its SDK report, in the words of a store. The one place where their exceptions are known."""

from __future__ import annotations

import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Iterator, Optional, Sequence

from ..._errors import VmferryError
from ..._http.answers import BROKEN, CONNECTION_BROKE, Meaning, blotted, failure, refusal, unreached
from .codes import BY_CODE, BY_STATUS, CREDENTIALS, NO_CONTAINER, signature

if TYPE_CHECKING:
    from azure.core.exceptions import HttpResponseError


class ContainerMissing(VmferryError):
    """Of `not_found`: not one object, but the place of all of them."""


@contextmanager
def translated(doing: str, secrets: Sequence[str] = (), *, checked: bool = False) -> Iterator[None]:
    """`doing` names the verb, the URL and the endpoint. `secrets` are blotted out of what the server says.

    `checked`: a checksum is sent along. Azurite does not say by its code that this is what did not match.
    """
    from azure.core.exceptions import AzureError, HttpResponseError
    from requests.exceptions import RequestException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except HttpResponseError as error:
        told = _from_answer(error, doing, secrets, checked) if error.response else failure(error, doing, _explained)
        raise told from _shown(error, secrets)
    except (AzureError, RequestException, HTTPError, OSError) as error:
        raise failure(error, doing, _explained) from _shown(error, secrets)


def _shown(error: Exception, secrets: Sequence[str]) -> Optional[Exception]:
    """As a cause; None where it repeats a secret, such as the URL with its SAS."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return None if any(secret in text for secret in secrets) else error


def _from_answer(error: HttpResponseError, doing: str, secrets: Sequence[str], checked: bool) -> VmferryError:
    response: Any = error.response
    headers = {name.lower(): value for name, value in response.headers.items()}
    code = getattr(error, "error_code", None) or headers.get("x-ms-error-code", "")
    code = str(getattr(code, "value", code))
    if checked and error.status_code == 400 and code == "InvalidOperation":
        code = "Md5Mismatch"
    meaning = _meaning(code, error.status_code or 0, error.message, secrets)
    made = ContainerMissing if meaning is NO_CONTAINER else VmferryError
    return refusal(meaning, doing, headers.get("retry-after", ""), made)


def _meaning(code: str, status: int, message: str, secrets: Sequence[str]) -> Meaning:
    if code in BY_CODE:
        return BY_CODE[code]
    if status in BY_STATUS:
        return BY_STATUS[status]
    if status >= 500:
        return BROKEN
    if status < 400:
        return "network", "the answer was not Azure's", "Check that endpoint_url is an Azure Blob service."
    reason = f"the server refused it with {code or status} ({blotted(message, secrets)})"
    return "internal", reason, "Check the storage options."


def _explained(error: Exception) -> Meaning:
    from azure.core import exceptions as sdk
    from urllib3 import exceptions as http

    # Above ClientAuthenticationError come the answers of a token service, and that nobody had any token.
    if isinstance(error, sdk.ClientAuthenticationError):
        return signature(_of_identity(error), CREDENTIALS)
    if no_answer := unreached(error):
        return no_answer
    if isinstance(error, (sdk.DecodeError, sdk.DeserializationError)):
        return "network", "the answer was not Azure's", "Check that endpoint_url is an Azure Blob service."
    if isinstance(error, (sdk.ServiceRequestError, sdk.ServiceResponseError, http.HTTPError, OSError)):
        return CONNECTION_BROKE
    return "internal", f"the Azure SDK raised {type(error).__name__}", ""


def _of_identity(error: Exception) -> str:
    if type(error).__name__ == "CredentialUnavailableError":
        return "no credentials were found"
    return "Microsoft Entra ID gave no token"
