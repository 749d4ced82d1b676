# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters of vm_info as those of EC2: whatever fits here must come back from there."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.filters import THERE, passed_on

ALL = {"Name": "instance-state-name", "Values": list(THERE)}


@pytest.mark.parametrize(
    ("glob", "value"),
    [
        ("web01", "web01"),
        ("web*", "web*"),
        ("web?[0-9]", "web??"),
        ("web[!a]*x", "web?*x"),
        ("web[]]1", "web?1"),
        ("a[b", "a[b"),
        ("x\\*", "x\\\\*"),
        ("in*", "in*"),
    ],
)
def test_name_is_looked_for_by_ec2(glob: str, value: str) -> None:
    assert passed_on({"name": glob}) == [ALL, {"Name": "tag:Name", "Values": [value]}]


@pytest.mark.parametrize("glob", ["*", "?-0*", "[h-j]*", "i*", "i-0*", "i-0123456789abcdef0", ""])
def test_a_name_that_may_be_an_id_is_looked_for_here(glob: str) -> None:
    assert passed_on({"name": glob}) == [ALL]


def test_signs_of_a_literal_name_stand_for_themselves() -> None:
    """A set with one sign is how a glob says it; a value of EC2 has a backslash before it."""
    assert fnmatchcase("a*b", "a[*]b")
    assert passed_on({"name": "a[*]b"})[1:] == [{"Name": "tag:Name", "Values": ["a?b"]}]


@pytest.mark.parametrize(
    ("state", "states"),
    [
        ("powered_on", ["pending", "running", "stopping"]),
        ("powered_off", ["stopped"]),
        ("suspended", ["stopped"]),
        ("crashed", list(THERE)),
    ],
)
def test_power_state_is_looked_for_by_ec2(state: str, states: list[str]) -> None:
    assert passed_on({"power_state": state}) == [{"Name": "instance-state-name", "Values": states}]


@pytest.mark.parametrize(
    ("tag", "passed"),
    [
        ("env=prod", [{"Name": "tag:env", "Values": ["prod"]}]),
        ("env=p*", [{"Name": "tag:env", "Values": ["p\\*"]}]),
        ("backup", [{"Name": "tag-key", "Values": ["backup"]}]),
        ("a=b=c", []),
        ("env=", []),
    ],
)
def test_tag_is_looked_for_by_ec2_where_its_key_is_known(tag: str, passed: list[dict[str, object]]) -> None:
    assert passed_on({"tag": tag}) == [ALL, *passed]
