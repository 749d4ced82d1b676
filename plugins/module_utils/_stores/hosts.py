# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts may be sent to, whatever a URL, a setting or a redirect says. Each store asks with each request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Optional, Sequence, Tuple
from urllib.parse import urlsplit

from .._errors import VmferryError

OPTION = "allowed_hosts"


@dataclass(frozen=True)
class AllowedHosts:
    """Names as they are, or `*.` and a domain for all that is below it. None: every host."""

    names: Optional[Tuple[str, ...]] = None

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> AllowedHosts:
        return cls.of(options.get(OPTION))

    @classmethod
    def of(cls, given: Optional[Sequence[str]]) -> AllowedHosts:
        if given is None:
            return cls()
        names = tuple(_normal(name) for name in given)
        for name in names:
            rest = name[2:] if name.startswith("*.") else name
            if not rest or any(sign in rest for sign in "*/@ "):
                raise VmferryError(
                    "invalid_config",
                    f"The storage option {OPTION} has '{name}', which is no host's name.",
                    "Write s3.example.org, or *.example.org for all that is below a domain.",
                )
        return cls(names)

    @property
    def limited(self) -> bool:
        return self.names is not None

    def check(self, url: str) -> None:
        """Of the request that is about to be sent. Raises `invalid_config`."""
        host = _normal(urlsplit(url).hostname or "")
        if self.names is None or ("\\" not in url and any(_fits(host, name) for name in self.names)):
            return
        raise VmferryError(
            "invalid_config",
            f"The host {host} is none of the storage option {OPTION}, so nothing is sent to it.",
            f"Add it to {OPTION}, if it may be used.",
        )


def _fits(host: str, name: str) -> bool:
    return host.endswith(name[1:]) if name.startswith("*.") else host == name


def _normal(name: str) -> str:
    return name.strip().strip("[]").rstrip(".").lower()


def check_each_request(session: Any, allowed: AllowedHosts) -> None:
    """Of a session of `requests`, which sends what a redirect asks for by the same way."""
    if not allowed.limited:
        return
    send = session.send

    def checked(request: Any, **options: Any) -> Any:
        allowed.check(request.url)
        return send(request, **options)

    session.send = checked
