# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.argspec import ArgumentSpec


def test_merge_leaves_both_sides_as_they_were() -> None:
    one = ArgumentSpec({"a": {}}, required_if=[("a", 1, ("b",))])
    other = ArgumentSpec({"b": {}}, required_by={"b": ["a"]})
    merged = one.merge(other)
    assert merged.options.keys() == {"a", "b"}
    assert (merged.required_if, merged.required_by) == ([("a", 1, ("b",))], {"b": ["a"]})
    assert (one.options.keys(), one.required_by) == ({"a"}, {})
    assert (other.options.keys(), other.required_if) == ({"b"}, [])


def test_option_defined_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="url"):
        ArgumentSpec({"url": {}, "vm": {}}).merge(ArgumentSpec({"url": {}}))
