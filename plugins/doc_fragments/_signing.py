# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose signature exports get, and whose they must have."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  signing:
    description:
      - The key that signs what is written. Exactly one of its suboptions says where it is.
      - It is an Ed25519 private key in PEM, as C(openssl genpkey -algorithm ed25519) or C(ssh-keygen -t ed25519) makes
        it. One that is locked by a passphrase has to be unlocked by O(signing.key_command).
      - It needs the Python package cryptography on the host that runs the module.
    type: dict
    suboptions:
      key:
        description:
          - The key itself, as from a vault or from a credential of AWX.
        type: str
      key_file:
        description:
          - A file with the key, on the host that runs the module. A file that everybody on that host may read or write
            is refused.
        type: path
      key_command:
        description:
          - A command that prints the key, as a list of words, on the host that runs the module. No shell reads it. It
            has a minute, and no input. Where it fails, what it complained about is told, and never what it printed.
          - It is run in check mode, too.
        type: list
        elements: str
"""

    TRUST = r"""
options:
  trusted_keys:
    description:
      - The Ed25519 public keys of those who sign exports, each in PEM, as a line of C(ssh-keygen), or as its 64
        hexadecimal digits.
      - With it, every manifest that is read must carry a valid signature by one of them, also those of the exports that
        an export stands on, before anything that it says is used. Where a task names a VM, a manifest is believed
        without a signature that it is of another one only where it lies in the folder of another one.
      - Without it, signatures are not looked at.
      - An empty list is refused, since it is what a template leaves that found no key.
      - It needs the Python package cryptography on the host that runs the module.
    type: list
    elements: str
"""
