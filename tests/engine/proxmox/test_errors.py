# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Proxmox VE says, in the collection's words: its kind, and what to do about it."""

from __future__ import annotations

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.errors import explained, locked


@pytest.mark.parametrize(
    ("said", "kind", "hint"),
    [
        ("VM is locked (backup)", "busy", "qm unlock"),
        ("can't lock file '/var/lock/qemu-server/lock-100.conf' - got timeout", "busy", "Another task"),
        ("Configuration file 'nodes/pve1/qemu-server/100.conf' does not exist", "not_found", ""),
        ("no such VM ('100')", "not_found", "vm_info"),
        ("storage 'nowhere' does not exist", "not_found", ""),
        ("snapshot feature is not available", "unsupported", "storage"),
        ("can't rollback, 'a' is not most recent snapshot on 'vm-100-disk-0'", "conflict", "newest"),
        ("cluster not ready - no quorum?", "conflict", "quorum"),
        ("unable to write to storage 'local': No space left on device", "no_space", "Free"),
        (
            "lvcreate 'pve/vm-100-disk-0' error: Volume group has insufficient free space (0 extents)",
            "no_space",
            "Free",
        ),
        ("QEMU guest agent is not running", "unsupported", "qemu-guest-agent"),
        ("VM quit/powerdown failed - got timeout", "timeout", ""),
        ("only root can set 'args' config", "permission_denied", "root@pam"),
        ("VM 100 already running", "conflict", ""),
        ("VM 100 not running", "conflict", ""),
        ("unable to create VM 100 - VM 100 already exists on node 'pve1'", "conflict", ""),
        ("VM 100 is running - destroy failed", "conflict", "Shut it down"),
        ("can't remove VM 100 - protection mode enabled", "conflict", "protection"),
        ("base volume 'local:100/base-100-disk-0.raw' is still in use by linked cloned", "conflict", "clones"),
        ("unable to find configuration file for qemu 100 on node 'pve1'", "not_found", "removed or moved"),
        ("hostname lookup 'pve2' failed - failed to get address info for: pve2", "network", "/etc/hosts"),
        ("storage 'nfs' is not online", "conflict", "reached"),
        ("connection check for storage 'nfs' failed - timeout", "network", "reached"),
        ("Failed to obtain guest migration lock - replication running?", "busy", "replication"),
        ("snapshot 'a' needed by replication job '100-0' - run replication first", "conflict", "replication"),
        ("Cannot live-migrate, snapshot (with RAM), or hibernate a VM with: hostpci0", "unsupported", "without memory"),
        ("unable to rollback to incomplete snapshot (snapstate = prepare)", "conflict", "never whole"),
        ("you can't take a snapshot if it's a template", "unsupported", "Clone"),
        ("unable to use snapshot name 'pending' (reserved name)", "invalid_config", "another name"),
        ("snapshot name 'snap1' already used", "conflict", ""),
        ("VM is paused - cannot shutdown", "conflict", "go on"),
        ("missing privileges to access local:100/vm-100-disk-0.raw", "permission_denied", "docs/proxmox.md"),
        ("something nobody has heard of", "internal", "list of tasks"),
    ],
)
def test_a_sentence_of_proxmox_has_a_kind_and_what_to_do(said: str, kind: str, hint: str) -> None:
    error = explained(said, "Doing it")
    assert (error.kind, error.message) == (kind, f"Doing it failed: {said}.")
    assert hint in error.hint


def test_a_missing_privilege_is_named_with_its_path_and_how_to_give_it() -> None:
    said = "Permission check failed (/vms/100, VM.Snapshot|VM.Snapshot.Rollback)"
    error = explained(said, "Going back", "backup@pve!nightly")
    assert error.kind == "permission_denied"
    wanted = (
        "Going back failed: backup@pve!nightly lacks the privilege VM.Snapshot or VM.Snapshot.Rollback on /vms/100."
    )
    assert error.message == wanted
    assert "pveum acl modify /vms/100 --tokens 'backup@pve!nightly'" in error.hint
    assert "privilege separation" in error.hint
    of_user = explained(said, "Going back", "backup@pve")
    assert "--users 'backup@pve'" in of_user.hint
    assert "privilege separation" not in of_user.hint


def test_what_root_alone_may_do_is_told() -> None:
    error = explained("Permission check failed (user != root@pam)", "Setting it", "backup@pve")
    assert (error.kind, "root@pam" in error.message) == ("permission_denied", True)
    assert "no token" in error.hint


def test_a_lock_is_named() -> None:
    error = locked("web01 (100)", "snapshot-delete", "100")
    assert (error.kind, error.retryable) == ("busy", True)
    assert error.message == "web01 (100) is locked by Proxmox VE: snapshot-delete."
    assert "qm unlock 100" in error.hint
    asleep = locked("web01 (100)", "suspended", "100")
    assert (asleep.kind, asleep.retryable) == ("conflict", False)
