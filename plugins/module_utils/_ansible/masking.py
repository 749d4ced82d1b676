# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The forms in which a secret may turn up in what a module tells, so that all of them are masked."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

_SHORTEST_LINE = 16  # characters; what is shorter could stand in any sentence


def forms_of(secret: str) -> set[str]:
    """As it was typed, as servers quote it, as it was sent, and the lines of a key."""
    lines = secret.splitlines()
    body = {line for line in lines if len(line) >= _SHORTEST_LINE and not line.startswith("-----")}
    return {
        secret,
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        base64.b64encode(secret.encode(errors="surrogateescape")).decode(),
        *body,
    } - {""}
