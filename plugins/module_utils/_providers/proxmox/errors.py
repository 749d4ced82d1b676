# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Proxmox VE and the way to it answer, in the collection's words.

Most of what goes wrong there comes as status 500 and a sentence; what tells one from another is a few words of that
sentence, which are the same in PVE 7, 8 and 9. Their sources: https://git.proxmox.com, pve-common, pve-guest-common,
qemu-server, pve-storage and pve-access-control.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import Iterator, Optional, Sequence, Tuple

from ..._errors import Kind, VmferryError
from ..._http.certificates import refused_certificate
from ..._http.error_layers import layers
from .settings import ProxmoxSettings

LOGIN = "Look at proxmox.api_user with its realm, as in root@pam, and at the password or the token's name and secret."
TWO_FACTORS = "A user with a second factor cannot log in like this. Make a token for it, and set proxmox.api_token_id."
REACH = "Is the address right, and can this machine reach it? The API is on port 8006, unless proxmox.api_port differs."
NODE = "Is that node up, and in the cluster's quorum? pvecm status on another node tells."
LOCKED = "Wait until it is done. If nothing works on it any more, qm unlock {vmid} on its node removes the lock."
OTHER_WORK = "Another task works on it; the list of tasks in Proxmox VE names it. Wait until it is done."
ROOT_ALONE = "Proxmox VE lets nobody do that but root@pam with its password; no token may."
_NOT_PVE = "Is that a node of Proxmox VE?"
_FORBIDDEN = re.compile(r"Permission check failed \(([^,()]+)(?:, ([^()]+))?\)")
_LOCKED = re.compile(r"(?:VM|CT) is locked(?: \(([\w-]+)\))?")
_STATUS_OF_LOGIN = re.compile(r"code: (\d{3})\s*$")
# Words of a sentence, in lower case: the first that are in it count.
_KINDS: Sequence[Tuple[str, Kind, str]] = (
    ("no quorum", "conflict", "The cluster has no quorum, so nothing can be changed in it. Bring its nodes back."),
    (
        "hostname lookup",
        "network",
        "The node that is asked does not know the address of another one: see its /etc/hosts.",
    ),
    ("does not exist on node", "not_found", ""),
    ("unable to find configuration file", "not_found", "It was removed or moved meanwhile."),
    ("no such vm", "not_found", "List the VMs that are there with vmferry.migrate.vm_info."),
    ("no such task", "not_found", ""),
    ("no such storage", "not_found", ""),
    ("no such logical volume", "not_found", ""),
    ("no such cluster node", "not_found", ""),
    ("does not exist", "not_found", ""),
    ("missing privileges", "permission_denied", "See docs/proxmox.md for those that it takes."),
    ("protection mode enabled", "conflict", "Switch its option protection off first, if that is really to be."),
    ("still in use by linked", "conflict", "Linked clones stand on it: remove those first, or make them whole."),
    ("still in use", "conflict", ""),
    ("replication running", "busy", "Wait until its replication is done."),
    ("needed by replication job", "conflict", "Run its replication first."),
    ("cannot live-migrate, snapshot", "unsupported", "Take it without memory."),
    ("incomplete snapshot", "conflict", "Remove that snapshot: it was never whole."),
    ("top-most snapshot of tpm", "conflict", "Shut the VM down first."),
    ("a template", "unsupported", "Clone it, and work with the clone."),
    ("reserved name", "invalid_config", "Give it another name."),
    ("already used", "conflict", ""),
    ("too many unused volumes", "quota", "Remove some of its unused disks."),
    ("already exists", "conflict", ""),
    ("no space left on device", "no_space", "Free some space on that storage."),
    ("not enough free space", "no_space", "Free some space on that storage."),
    ("insufficient free space", "no_space", "Free some space on that storage."),
    ("disk quota exceeded", "quota", ""),
    ("can't lock file", "busy", OTHER_WORK),
    ("unable to acquire pmxcfs lock", "busy", OTHER_WORK),
    ("got lock request timeout", "busy", OTHER_WORK),
    ("trying to acquire lock", "busy", OTHER_WORK),
    ("file change by other user", "conflict", "Somebody changed it meanwhile. Run it again."),
    ("snapshot feature is not available", "unsupported", "A disk of it is on a storage that makes no snapshots."),
    ("is not most recent snapshot", "conflict", "That storage goes back to the newest snapshot alone."),
    ("guest agent is not running", "unsupported", "Start qemu-guest-agent in the guest."),
    ("no qemu guest agent configured", "unsupported", "Switch the option agent of the VM on, and start it again."),
    ("qmp command", "timeout", "QEMU did not answer in time; its node's log tells more."),
    ("got timeout", "timeout", ""),
    ("timed out", "timeout", ""),
    ("only root can", "permission_denied", ROOT_ALONE),
    ("not running", "conflict", ""),
    ("already running", "conflict", ""),
    ("is not available on node", "conflict", "That storage is not there, or not on that node."),
    ("is not online", "conflict", "That storage cannot be reached by the node."),
    ("connection check for storage", "network", "That storage cannot be reached by the node."),
    ("is paused", "conflict", "Have it go on in Proxmox VE first."),
    ("is running", "conflict", "Shut it down first."),
    ("powerdown failed", "timeout", ""),
    ("is disabled", "conflict", ""),
    ("can't activate", "conflict", ""),
    ("not supported", "unsupported", ""),
    ("not implemented", "unsupported", "This Proxmox VE is too old for that."),
)
# By the status: those above 500 are of the proxy in front of every node (AnyEvent::HTTP).
_STATUSES = {
    401: ("unauthenticated", LOGIN),
    404: ("not_found", ""),
    408: ("timeout", REACH),
    413: ("unsupported", "It is larger than Proxmox VE takes at once."),
    429: ("rate_limited", ""),
    501: ("unsupported", "This Proxmox VE is too old for that."),
    502: ("network", "A proxy in front of Proxmox VE does not reach it."),
    503: ("network", "A proxy in front of Proxmox VE does not reach it."),
    504: ("timeout", "A proxy in front of Proxmox VE does not reach it."),
    595: ("network", NODE),
    596: ("network", NODE),
    597: ("network", NODE),
    598: ("network", NODE),
    599: ("network", NODE),
}


class StrangeAnswer(Exception):
    """What came is not what Proxmox VE would send."""


@contextmanager
def translated(doing: str, settings: ProxmoxSettings) -> Iterator[None]:
    """What proxmoxer and requests raise inside comes out as a `VmferryError` whose sentence begins with `doing`."""
    import requests
    from proxmoxer.core import AuthenticationError, ResourceException

    try:
        yield
    except ResourceException as error:
        raise _answered(error, doing, settings) from error
    except AuthenticationError as error:
        raise _not_let_in(error, doing, settings) from error
    except StrangeAnswer as error:
        text = f"{doing} failed: {settings.address} does not answer as Proxmox VE does."
        raise VmferryError("network", text, _NOT_PVE, retryable=False) from error
    except (requests.exceptions.RequestException, OSError) as error:
        raise _of_connection(error, doing, settings) from error


def is_line_cut(error: BaseException) -> bool:
    """Whether the connection broke, or could not be made: not where an answer took too long, or a certificate is
    refused."""
    from requests import exceptions

    no = (exceptions.Timeout, exceptions.SSLError)
    return isinstance(error, exceptions.ConnectionError) and not isinstance(error, no)


def status_of(error: BaseException) -> int:
    """Of what proxmoxer raised; 0 of anything else."""
    from proxmoxer.core import AuthenticationError, ResourceException

    if isinstance(error, ResourceException):
        return int(error.status_code)
    found = _STATUS_OF_LOGIN.search(str(error)) if isinstance(error, AuthenticationError) else None
    return int(found[1]) if found else 0


def explained(said: str, doing: str, who: str = "") -> VmferryError:
    """Of a sentence of Proxmox VE's, which a task ended with, or which came with status 500."""
    said = _one_line(said)
    text = f"{doing} failed: {said}."
    forbidden = _FORBIDDEN.search(said)
    if forbidden:
        return _forbidden(forbidden, doing, who)
    if _LOCKED.search(said):
        return VmferryError("busy", text, LOCKED.format(vmid="VMID"))
    for words, kind, hint in _KINDS:
        if words in said.lower():
            return VmferryError(kind, text, hint)
    return VmferryError("internal", text, "See the list of tasks in Proxmox VE, and the log of the node.")


def locked(what: str, lock: str, vmid: str) -> VmferryError:
    """`lock`: in the words of Proxmox VE, such as backup, migrate or snapshot-delete."""
    if lock == "suspended":
        hint = "Start it, and shut it down from within; or have its memory dropped: qm unlock."
        return VmferryError("conflict", f"{what} is hibernated: its memory lies on a disk.", hint)
    return VmferryError("busy", f"{what} is locked by Proxmox VE: {lock}.", LOCKED.format(vmid=vmid))


def _answered(error: BaseException, doing: str, settings: ProxmoxSettings) -> VmferryError:
    said = _one_line(str(getattr(error, "content", "")) or str(error))
    fields = getattr(error, "errors", None)
    if isinstance(fields, dict):
        told = "; ".join(f"{name}: {_one_line(str(text))}" for name, text in sorted(fields.items()) if text)
        said = f"{said.rstrip(':')}: {told}" if told else said
    status = status_of(error)
    if status == 400:
        return VmferryError("invalid_config", f"{doing} failed: {said}.", "This Proxmox VE does not take that.")
    if status == 403 and not _FORBIDDEN.search(said):
        return VmferryError("permission_denied", f"{doing} failed: {said}.", grant(settings.who, "", ""))
    if status in _STATUSES:
        kind, hint = _STATUSES[status]
        return VmferryError(kind, f"{doing} failed: {said}.", hint)  # type: ignore[arg-type]
    return explained(said, doing, settings.who)


def _forbidden(found: re.Match[str], doing: str, who: str) -> VmferryError:
    path, privileges = found[1], (found[2] or "").replace("|", " or ")
    if not privileges:
        return VmferryError("permission_denied", f"{doing} failed: it takes {path}.", ROOT_ALONE)
    text = f"{doing} failed: {who or 'the user'} lacks the privilege {privileges} on {path}."
    return VmferryError("permission_denied", text, grant(who, path, privileges))


def grant(who: str, path: str, privileges: str) -> str:
    """What whoever lacks them is to do."""
    whose = f"--tokens '{who}'" if "!" in who else f"--users '{who}'"
    where = f" with {privileges}" if privileges else ""
    what = f"Give it a role{where}: pveum acl modify {path or '/'} {whose} --roles ROLE. See docs/proxmox.md."
    if "!" in who:
        what += " A token with privilege separation has no privilege that is not given to it and to its user."
    return what


def _not_let_in(error: BaseException, doing: str, settings: ProxmoxSettings) -> VmferryError:
    status = status_of(error)
    if "Two Factor" in str(error):
        return VmferryError("unauthenticated", f"{doing} failed: {settings.who} needs a second factor.", TWO_FACTORS)
    if status in (0, 401):
        return VmferryError(
            "unauthenticated", f"{doing} failed: {settings.address} does not let {settings.who} in.", LOGIN
        )
    kind, hint = _STATUSES.get(status, ("network", _NOT_PVE))
    return VmferryError(
        kind,  # type: ignore[arg-type]
        f"{doing} failed: {settings.address} answered the login with status {status}.",
        hint,
    )


def _of_connection(error: Exception, doing: str, settings: ProxmoxSettings) -> VmferryError:
    import requests

    refused = refused_certificate(error)
    if refused:
        kind, said, hint = refused
        hint = hint.replace("{address}", "proxmox.api_host").replace("ca_path", "proxmox.ca_path")
        text = f"{doing} failed: {settings.address}: {said}{_of_openssl(error)}."
        return VmferryError(
            kind, text, f"{hint} On a node, /etc/pve/pve-root-ca.pem is that of its cluster.", retryable=False
        )
    if isinstance(error, requests.exceptions.Timeout):
        return VmferryError("timeout", f"{doing} failed: {settings.address} did not answer in time.", REACH)
    return VmferryError("network", f"{doing} failed: {settings.address}: {_reason(error)}.", REACH)


def _of_openssl(error: BaseException) -> str:
    """Why exactly, in brackets: of certificates that were signed by their own cluster there are several ways."""
    told = [getattr(each, "verify_message", "") for each in layers(error)]
    return "".join(f" ({one})" for one in told if one)


def _reason(error: BaseException) -> str:
    """Of the layers of libraries around it, what the system said."""
    told: Optional[str] = None
    for each in layers(error):
        told = getattr(each, "strerror", None) or told
    return told or type(error).__name__


def _one_line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")
