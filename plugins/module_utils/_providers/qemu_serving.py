# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a running QEMU may serve a guest's disks by NBD at all.

A disk with an I/O thread of its own is served in that thread. Old NBD servers of QEMU were not made for it: several
threads change what they count. Where the fix for CVE-2024-7409 was brought into such a version, QEMU ends as soon as a
client goes, and the guest with it (measured with 7.2.22: `nbd_blockdev_client_closed: Assertion`). It is safe since
"nbd/server: only traverse NBDExport->clients from main loop thread" (f816310d0c) and the two changes around it, which
are in 9.0 and in the stable 8.2.3: https://gitlab.com/qemu-project/qemu/-/commits/v8.2.3.
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence, Tuple

from .._errors import VmferryError

SAFE = (8, 2, 3)


def is_safe(version: Tuple[int, ...]) -> bool:
    return version >= SAFE


def insist_on_safe_version(told: Mapping[str, Any], vm_name: str, threaded: Sequence[str], hint: str) -> None:
    """`told`: what QMP's `query-version` returns. `threaded`: the disks to be served that have an I/O thread.

    Raises `unsupported`.
    """
    version: Tuple[int, ...] = tuple(int(told["qemu"][part]) for part in ("major", "minor", "micro"))
    if threaded and not is_safe(version):
        raise VmferryError(
            "unsupported",
            f"{vm_name} runs with QEMU {'.'.join(map(str, version))}, which may crash when disks with an I/O thread of "
            f"their own are read while it runs: {', '.join(threaded)}.",
            hint,
        )
