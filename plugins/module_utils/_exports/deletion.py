# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies in the place of a manifest while an export is being deleted: who deletes it, and the manifest itself.

It is written before the manifest is deleted and removed last, so that whatever a killed run leaves can be finished, or
taken back. It is a claim, too: one run at a time deletes an export.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from .fields import Fields
from .intent import Intent, read_intent

DELETION = "deleting.json"
_MANIFEST = "manifest"


@dataclass(frozen=True)
class Deletion:
    claim: Intent  # of the run that deletes
    manifest: bytes

    def to_json(self) -> bytes:
        return json.dumps({**json.loads(self.claim.to_json()), _MANIFEST: self.manifest.decode()}).encode() + b"\n"


def read_deletion(text: bytes, where: str) -> Deletion:
    """Raises `invalid_config`."""
    manifest = Fields.parse(text, where).all().get(_MANIFEST)
    if not isinstance(manifest, str):
        raise Fields({}, where).lie("has no manifest")
    return Deletion(read_intent(text, where), manifest.encode())
