# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""vSphere's faults in the collection's words. They are those of the vSphere Web Services API, by their class."""

from __future__ import annotations

import ssl
from contextlib import contextmanager
from http.client import HTTPException
from socket import gaierror
from socket import timeout as SocketTimeout
from typing import Any, Iterator, Mapping, Tuple
from xml.parsers.expat import ExpatError

from ..._errors import Kind, VmferryError
from .tls import HOW_TO_READ_ONE, WrongCertificate

LOGIN = "Look at vsphere.username, which often needs its domain (user@vsphere.local), and at vsphere.password."
PRIVILEGE = "Give the user a role that has it, on that object or above it; see docs/vsphere.md."
OTHER_TASK = "Another task works on this VM; vSphere's list of recent tasks names it. Wait until it is done."
QUIESCE = "See the guest's own log (VSS on Windows), or take it without: quiesce: never."
LICENSE = "A free ESXi licence answers so to everything that changes a VM. Connect to the vCenter, or license the host."
REACH = "Is the address right, and can this machine reach it? A proxy is set with vsphere.proxy_host."
CERTIFICATE = (
    "Set vsphere.ca_path to the authority that signed it, or vsphere.thumbprint to the SHA-256 of the certificate. "
    f"{HOW_TO_READ_ONE}"
)
_OF_CONNECTION = (OSError, HTTPException, ExpatError)
_NOBODY_ASKED = (ConnectionRefusedError, gaierror)
# A class, or what it is derived from: the first that is known counts.
_KINDS: Mapping[str, Tuple[Kind, str]] = {
    "InvalidLogin": ("unauthenticated", LOGIN),
    "NoPermission": ("permission_denied", PRIVILEGE),
    "NotAuthenticated": ("unauthenticated", "The session was ended by the server, and ended again. See its log."),
    "PasswordExpired": ("unauthenticated", "Set a new password for this user, and give it here."),
    "RestrictedVersion": ("unsupported", LICENSE),
    "ManagedObjectNotFound": ("not_found", "It was removed meanwhile."),
    "NotFound": ("not_found", ""),
    "FileNotFound": ("not_found", ""),
    "NoDiskSpace": ("no_space", "Free some space on the datastore."),
    "InsufficientResourcesFault": ("quota", "The host or the resource pool has too little left."),
    "TooManySnapshotLevels": ("quota", "Remove snapshots of this VM."),
    "FileLocked": ("busy", "Another host or a backup holds the file."),
    "TaskInProgress": ("busy", OTHER_TASK),
    "ConcurrentAccess": ("busy", OTHER_TASK),
    "ResourceInUse": ("busy", OTHER_TASK),
    "ToolsUnavailable": ("unsupported", "Start VMware Tools, or open-vm-tools, in the guest."),
    "ApplicationQuiesceFault": ("conflict", QUIESCE),
    "FilesystemQuiesceFault": ("conflict", QUIESCE),
    "MemorySnapshotOnIndependentDisk": ("unsupported", "Take it without memory, or while the VM is off."),
    "MultipleSnapshotsNotSupported": ("unsupported", "This host keeps one snapshot of a VM."),
    "InvalidPowerState": ("conflict", ""),
    "InvalidState": ("conflict", ""),
    "DuplicateName": ("conflict", ""),
    "NotSupported": ("unsupported", "This vSphere, or this VM, cannot do that."),
    "MethodNotFound": ("unsupported", "This vSphere is too old for that."),
    "RequestCanceled": ("cancelled", "Somebody cancelled the task in vSphere."),
    "Timedout": ("timeout", "vSphere gave up waiting; its log tells for what."),
    "HostCommunication": ("network", "vCenter does not reach the ESXi host."),
    "HostConnectFault": ("network", "vCenter does not reach the ESXi host."),
    "InvalidName": ("invalid_config", ""),
    "InvalidArgument": ("invalid_config", ""),
}


def is_fault(error: object, name: str) -> bool:
    return name in _classes(error)


def is_session_gone(error: object) -> bool:
    return is_fault(error, "NotAuthenticated")


def is_passing(error: VmferryError) -> bool:
    """Whether waiting goes on: vCenter may be back in a moment, or another session be answered."""
    return error.retryable or is_session_gone(error.__cause__)


def may_have_happened(error: VmferryError) -> bool:
    """Whether what was asked may have been done although no answer came: not where nobody could be asked."""
    cause = error.__cause__
    return error.retryable and not isinstance(cause, _NOBODY_ASKED) and isinstance(cause, _OF_CONNECTION)


def is_known_undone(error: VmferryError) -> bool:
    """Whether the server itself says that it was not done, or could not be asked."""
    return is_fault(error.__cause__, "MethodFault") or isinstance(error.__cause__, _NOBODY_ASKED)


@contextmanager
def translated(doing: str, address: str) -> Iterator[None]:
    """What pyVmomi raises inside comes out as a `VmferryError` whose sentence begins with `doing`."""
    from pyVmomi import vmodl

    try:
        yield
    except vmodl.MethodFault as fault:
        raise explained(fault, doing) from fault
    except _OF_CONNECTION as error:
        raise of_connection(error, doing, address) from error


def explained(fault: Any, doing: str) -> VmferryError:
    """Of a fault that was raised, or that a task ended with."""
    known = next((name for name in _classes(fault) if name in _KINDS), "")
    kind, hint = _KINDS.get(known, ("internal", "See the task, and the log of the VM, in the vSphere Client."))
    return VmferryError(kind, f"{doing} failed: {said_by(fault)}.", hint)


def said_by(fault: Any) -> str:
    """One line, without the full stop."""
    texts = [getattr(fault, "localizedMessage", None), getattr(fault, "msg", None)]
    texts += [getattr(one, "message", None) for one in getattr(fault, "faultMessage", None) or ()]
    said = ": ".join(dict.fromkeys(" ".join(text.split()).rstrip(".") for text in texts if text))
    name = type(fault).__name__.rpartition(".")[2]
    if getattr(fault, "privilegeId", None):
        said = f"{said + ', ' if said else ''}the privilege {fault.privilegeId} is missing"
    return said or name


def _classes(error: object) -> Tuple[str, ...]:
    """Without the namespaces, the most special first."""
    return tuple(each.__name__.rpartition(".")[2] for each in type(error).__mro__)


def of_connection(error: Exception, doing: str, address: str) -> VmferryError:
    """Of what a connection to the API, or to a server of disks, failed with."""
    if isinstance(error, WrongCertificate):
        hint = "If the certificate was renewed, set vsphere.thumbprint to the new one. If not, somebody may be between."
        return VmferryError(
            "network", f"{doing} failed: {error.args[0]}, not the one that is pinned.", hint, retryable=False
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        said = f"the certificate of {address} was not accepted: {error.verify_message}"
        hint = CERTIFICATE.format(address=address if ":" in address else f"{address}:443")
        return VmferryError("network", f"{doing} failed: {said}.", hint, retryable=False)
    if isinstance(error, SocketTimeout):
        return VmferryError("timeout", f"{doing} failed: {address} did not answer in time.", REACH)
    if isinstance(error, ExpatError):
        said, hint = f"{address} does not answer as vSphere does", "Is that a vCenter or an ESXi host?"
        return VmferryError("network", f"{doing} failed: {said}.", hint)
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return VmferryError("network", f"{doing} failed: {address}: {said}.", REACH)
