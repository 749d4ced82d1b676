# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`qemu-img`, for what only QEMU knows of an image."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any, Dict

from .._errors import Kind, VmferryError

_COMPLAINTS: tuple[tuple[str, Kind], ...] = (
    ("No space left", "no_space"),
    ("lock", "busy"),
    ("Is another process using the image", "busy"),  # its last line, of which the one before tells of the lock
    ("No such file", "not_found"),
    ("Permission denied", "permission_denied"),
)


def qemu_img(*arguments: str, seconds: float | None = None) -> str:
    """What it prints. Raises `invalid_config` where it is missing, and what it complains of by kind; `timeout` after
    that many seconds, when it is ended.
    """
    try:
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            ["qemu-img", *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
            timeout=seconds,
        )
    except FileNotFoundError as error:
        hint = "Install qemu-utils (Debian, Ubuntu) or qemu-img (Fedora, RHEL, SUSE)."
        raise VmferryError("invalid_config", "qemu-img is not installed.", hint) from error
    except subprocess.TimeoutExpired as error:
        raise VmferryError("timeout", f"qemu-img {arguments[0]} was not done within {error.timeout:.0f} s.") from error
    if done.returncode:
        said = " ".join((done.stderr.strip().splitlines() or ["it failed without a word"])[-1].split())[:300]
        kind: Kind = next((meant for words, meant in _COMPLAINTS if words in said), "invalid_config")
        raise VmferryError(kind, f"qemu-img {arguments[0]} failed: {said}.")
    return done.stdout


def image_info(image: str, format: str) -> Dict[str, Any]:
    """`qemu-img info`, also of an image in use; the format is never guessed."""
    found: Dict[str, Any] = json.loads(qemu_img("info", "-U", "--output=json", "-f", format, image))
    return found
