# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Network cards of a VM of which there are images of disks, and nothing else."""

from __future__ import annotations

from typing import Sequence, Tuple

from ..._providers.spec import NicSpec

NETWORKS = ("default",)
# Formats of QEMU hold guests that know virtio; what comes from elsewhere is given what every system knows.
OF_QEMU = ("qcow2", "qcow", "qed", "raw", "raw_tar_gz")  # the last: Compute Engine asks for virtio
_USUAL = "e1000e"


def nics_of_image(networks: Sequence[str], formats: Sequence[str]) -> Tuple[NicSpec, ...]:
    """One in each network. `formats`: of the images of the disks."""
    model = "virtio" if all(format in OF_QEMU for format in formats) else _USUAL
    return tuple(NicSpec(f"nic-{number}", "", network, model, "network") for number, network in enumerate(networks))
