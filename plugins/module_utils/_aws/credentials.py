# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who a task is to AWS: keys, a profile, a role. What is left out comes from boto3's own chain."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, Optional, Sequence

from .._errors import VmferryError
from .._http.clear_text import refuse_in_clear

Refused = Callable[[str, str, str], VmferryError]  # of an option, the rule that it breaks and a hint


@dataclass(frozen=True)
class AwsCredentials:
    profile: Optional[str] = None
    access_key: Optional[str] = field(default=None, repr=False)
    secret_key: Optional[str] = field(default=None, repr=False)
    session_token: Optional[str] = field(default=None, repr=False)
    role_arn: Optional[str] = None
    role_session_name: Optional[str] = None
    external_id: Optional[str] = None
    web_identity_token_file: Optional[str] = None
    sts_endpoint_url: Optional[str] = None

    @property
    def secrets(self) -> Sequence[str]:
        return [secret for secret in (self.access_key, self.secret_key, self.session_token) if secret]

    def check(self, refused: Refused) -> None:
        """Raises what `refused` makes of options that do not go together."""
        if bool(self.access_key) != bool(self.secret_key):
            raise refused("access_key", "and secret_key go together", "Give both, or none to have the environment's.")
        if self.session_token and not self.access_key:
            raise refused(
                "session_token", "goes with access_key and secret_key only", "Give all three, or leave it out."
            )
        if self.profile and self.access_key:
            raise refused("profile", "goes without access_key", "Leave one of the two out.")
        for name in ("role_session_name", "external_id", "web_identity_token_file"):
            if getattr(self, name) and not self.role_arn:
                raise refused(name, "goes with role_arn only", "Add role_arn, or leave it out.")
        if self.web_identity_token_file and (self.access_key or self.profile):
            raise refused("web_identity_token_file", "goes without access_key and profile", "Leave one of them out.")
        if self.web_identity_token_file and self.external_id:
            raise refused("external_id", "goes without web_identity_token_file", "Leave one of the two out.")
        check_endpoint("sts_endpoint_url", self.sts_endpoint_url, "https://sts.example.org", refused)
        if self.web_identity_token_file:
            refuse_in_clear(self.sts_endpoint_url or "", "The token of web_identity_token_file")


def check_endpoint(option: str, url: Optional[str], example: str, refused: Refused) -> None:
    """Raises what `refused` makes of one that cannot be meant."""
    if url and not url.startswith(("http://", "https://")):
        raise refused(option, "starts with http:// or https://", f"Write for example {example}.")
    if url and "@" in url:
        raise refused(option, "carries no credentials", "Put them into access_key and secret_key.")
