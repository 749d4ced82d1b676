# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to reach Proxmox VE."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  proxmox:
    description:
      - How to reach a cluster of Proxmox VE, or a node that is in none. Connection settings only.
      - A task's dictionary replaces the one in C(module_defaults) as a whole; use the P(ansible.builtin.combine#filter)
        filter to change one value of it.
      - See U(https://github.com/vmferry/vmferry.migrate/blob/main/docs/proxmox.md), also for the privileges that the
        user or token needs.
    type: dict
    suboptions:
      api_host:
        description:
          - The name or address of a node. With a port, as in V(pve.example.com:8006), O(proxmox.api_port) is not
            needed.
          - O(provider=proxmox) needs it, O(proxmox.api_user), and either O(proxmox.api_password) or
            O(proxmox.api_token_id) with O(proxmox.api_token_secret).
          - If not given, the environment variable E(PROXMOX_HOST) is used.
        type: str
      api_port:
        description:
          - The port of the API, 8006 if not given.
          - If not given, the environment variable E(PROXMOX_PORT) is used.
        type: int
      api_user:
        description:
          - The user with its realm, as in V(root@pam) or V(backup@pve).
          - If not given, the environment variable E(PROXMOX_USER) is used.
        type: str
      api_password:
        description:
          - The password of the user. A user with a second factor needs a token instead.
          - If not given, the environment variable E(PROXMOX_PASSWORD) is used, unless there is a token.
        type: str
      api_token_id:
        description:
          - The name of an API token of the user, such as V(automation). V(backup@pve!automation) is understood, too. It
            is not a secret and is not masked.
          - If not given, the environment variable E(PROXMOX_TOKEN_ID) is used, unless the task gives a password.
        type: str
      api_token_secret:
        description:
          - The secret of the API token.
          - If not given, the environment variable E(PROXMOX_TOKEN_SECRET) is used, unless the task gives a password.
        type: str
      validate_certs:
        description:
          - Whether to check the certificate of the API.
          - If neither this nor O(proxmox.ca_path) is given, the environment variable E(PROXMOX_VALIDATE_CERTS) is used.
        type: bool
        default: true
      ca_path:
        description:
          - A file, on the host that runs the module, with the certificates of the authorities to trust. For a cluster
            with certificates of its own, it is a copy of C(/etc/pve/pve-root-ca.pem) of a node. It cannot be given with
            V(false) for O(proxmox.validate_certs).
          - If not given, the environment variable E(PROXMOX_CA_PATH) is used, or else the authorities of the system.
        type: path
      api_timeout:
        description:
          - For how many seconds to wait for the answer to one call, 60 to 3600. Work that takes longer is done by tasks
            of Proxmox VE, which are followed until they end, whatever this says.
        type: int
        default: 60
      transport:
        description:
          - How the data of disks is reached, for which the API has no way.
          - V(node) works on the node itself, as root, on the host that runs the module. V(ssh) reaches the node that
            the VM is on by OpenSSH. V(api) uses the API alone, and can do what that can.
          - V(auto) is V(node) on the node that the VM is on, and V(ssh) on any other host.
        type: str
        choices:
          - auto
          - node
          - ssh
          - api
        default: auto
      host_map:
        description:
          - Addresses for SSH by the names of nodes. A node that is not named here is reached at the address that the
            cluster tells of it.
        type: dict
      ssh_user:
        description:
          - Whom to log in as on the node. It has to be root, or be given its rights there.
        type: str
        default: root
      ssh_port:
        description:
          - The port of SSH on the node.
        type: int
        default: 22
      ssh_private_key_file:
        description:
          - The private key, a file on the host that runs the module. If not given, what OpenSSH finds by itself, such
            as its agent, is used.
        type: path
      ssh_known_hosts:
        description:
          - A file, on the host that runs the module, with the public keys of nodes. If not given, OpenSSH's own are
            used.
          - A node whose key is not known there is never connected to.
        type: path
      fleecing_storage:
        description:
          - The storage that keeps what a running VM overwrites while it is exported, until the export is over. It has
            to be there on the VM's node, and to be of type dir, nfs, cifs, btrfs, cephfs, lvm, lvmthin or zfspool.
          - If not given, the storage of each disk keeps what is overwritten on it. Name another one where that has
            little room, is a thick LVM, which needs as much room as the disk has, or is of another type, such as rbd.
        type: str
requirements:
  - for Proxmox VE, proxmoxer 2.0 or newer and requests on the host that runs the module, and Proxmox VE 8 or newer
"""
