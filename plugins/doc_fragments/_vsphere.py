# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to reach vSphere."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  vsphere:
    description:
      - How to reach a vCenter Server or an ESXi host. Connection settings only.
      - A task's dictionary replaces the one in C(module_defaults) as a whole; use the P(ansible.builtin.combine#filter)
        filter to change one value of it.
      - See U(https://github.com/vmferry/vmferry.migrate/blob/main/docs/vsphere.md), also for the privileges that the
        user needs.
    type: dict
    suboptions:
      hostname:
        description:
          - The name or address of the server. With a port, as in V(vcenter.example.com:8443), O(vsphere.port) is not
            needed.
          - O(provider=vsphere) needs it, and O(vsphere.username) and O(vsphere.password).
          - If not given, the environment variable E(VMWARE_HOST) is used, or the host and port of E(GOVC_URL). A user
            in that URL is not used, and its password must be quoted as in every URL, such as V(%23) for V(#).
        type: str
      port:
        description:
          - The port of the server, 443 if not given.
          - If not given, the environment variable E(VMWARE_PORT) is used.
        type: int
      username:
        description:
          - The user, as in V(backup@vsphere.local).
          - If not given, the environment variable E(VMWARE_USER) or E(GOVC_USERNAME) is used.
        type: str
      password:
        description:
          - The password of the user.
          - If not given, the environment variable E(VMWARE_PASSWORD) or E(GOVC_PASSWORD) is used.
        type: str
      validate_certs:
        description:
          - Whether the certificate of the server must be signed by an authority that is trusted, and made for
            O(vsphere.hostname). Without it, whoever is between can read the password.
          - If not given, the environment variable E(VMWARE_VALIDATE_CERTS) is used, or the opposite of
            E(GOVC_INSECURE). They count only where neither O(vsphere.ca_path) nor O(vsphere.thumbprint) is given.
          - V(false) cannot be given with O(vsphere.ca_path).
        type: bool
        default: true
      ca_path:
        description:
          - A file in PEM format, on the host that runs the module, with the authorities to trust instead of those of
            the system. vCenter offers its own for download at C(https://vcenter.example.com/certs/download.zip).
          - If not given, the environment variable E(GOVC_TLS_CA_CERTS) is used, for one file, unless the
            task itself gives V(false) for O(vsphere.validate_certs).
        type: path
      thumbprint:
        description:
          - The SHA-256 thumbprint of the server's certificate, as 64 hex digits, with or without colons. Then this
            certificate is accepted and no other, whoever signed it; O(vsphere.validate_certs) and O(vsphere.ca_path)
            have no effect.
          - If not given, the environment variable E(VMFERRY_VSPHERE_THUMBPRINT) is used.
        type: str
      proxy_host:
        description:
          - The name or address of an HTTP proxy, through which the server is reached with C(CONNECT).
          - If not given, the environment variable E(VMWARE_PROXY_HOST) is used.
        type: str
      proxy_port:
        description:
          - The port of the proxy. O(vsphere.proxy_host) needs it.
          - If not given, the environment variable E(VMWARE_PROXY_PORT) is used.
        type: int
      host_map:
        description:
          - Addresses of ESXi hosts by the names that vCenter gives them, for those that the host that runs the module
            cannot resolve or reach so. An address may have a port, as in V(192.0.2.7:8443).
          - Disks are read from the ESXi hosts themselves. Their certificates still have to be made for the name, or to
            be those that vCenter tells.
        type: dict
      vddk_libdir:
        description:
          - The folder of VMware's VDDK on the host that runs the module, such as
            V(/opt/vmware-vix-disklib-distrib). Then disks are read by it, through C(nbdkit) and its plugin C(vddk).
          - VDDK is not part of this collection. VMware's licence of it is between you and VMware.
          - VDDK reaches the ESXi hosts on port 902, and knows neither O(vsphere.proxy_host) nor O(vsphere.host_map).
        type: path
      nbd_uri:
        description:
          - The URI of an NBD server of yours that shows disks of snapshots, such as
            V(nbd://backup-proxy/{snapshot}/{key}) or V(nbd+unix:///{snapshot}/{key}?socket=/run/disks).
          - C({vm}) and C({snapshot}) become MoRefs, C({key}) the key of the disk, as in C(details) of
            M(vmferry.migrate.vm_info), and C({file}) its file, as in V([datastore] web01/web01.vmdk). All are quoted.
            C({snapshot}) has to be there, and C({key}) or C({file}).
          - What it shows must be the disk as that snapshot holds it; only its size is compared.
        type: str
requirements:
  - for vSphere, pyvmomi 8.0.1 or newer on the host that runs the module, and vSphere 6.5 or newer
"""
