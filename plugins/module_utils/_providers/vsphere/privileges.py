# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the user may do, asked before it is tried: AuthorizationManager in the vSphere Web Services API."""

from __future__ import annotations

from typing import Any, Sequence

from ..._errors import VmferryError
from ..finding import Finding
from .session import Session


def of_privileges(session: Session, kind: str, moref: str, name: str, privileges: Sequence[str]) -> Sequence[Finding]:
    """One for each that is lacking. Nothing where it cannot be asked: then the real call tells."""
    entity = session.managed(kind, moref)

    def granted(content: Any) -> Sequence[bool]:
        return list(content.authorizationManager.HasPrivilegeOnEntity(entity, session.key, list(privileges)))

    try:
        answers = session.read(f"Looking at privileges on {name}", granted)
    except VmferryError as error:
        if error.kind not in ("unsupported", "permission_denied"):
            raise
        return []
    hint = "Give it to a role of the user, there or above it; see docs/vsphere.md."
    return [
        Finding("error", f"The user lacks the privilege {privilege} on {name}.", hint, "permission_denied")
        for privilege, given in zip(privileges, answers)
        if not given
    ]
