# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The passphrase that encrypts exports, and opens them."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  encryption:
    description:
      - The passphrase that encrypts exports on the host that moves the data, and opens them there. Exactly one of its
        suboptions says where it is. It needs at least 8 characters; a random one of 24 is better.
      - The images are LUKS in qcow2, which C(qemu-img) opens with the same passphrase. Digests are keyed, and the
        manifest is signed by a key that is made of the passphrase, so that another passphrase, tampering and truncation
        are all detected.
      - Nobody can open an export without its passphrase. Keep it elsewhere, too.
      - It needs the Python packages cryptography and numpy on the host that runs the module.
    type: dict
    suboptions:
      passphrase:
        description:
          - The passphrase itself, as from a vault or from a credential of AWX.
        type: str
      passphrase_file:
        description:
          - A file with the passphrase as its first line, on the host that runs the module. A file that everybody on
            that host may read or write is refused.
        type: path
      passphrase_command:
        description:
          - A command whose first line of output is the passphrase, as a list of words, on the host that runs the
            module. No shell reads it. It has a minute, and no input. Where it fails, what it complained about is told,
            and never what it printed.
          - It is run in check mode, too.
        type: list
        elements: str
"""
