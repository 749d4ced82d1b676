# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation and the code say the same, option by option; groups, fragments and modules agree."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any, Iterator

import pytest
import yaml

from ansible_collections.vmferry.migrate.plugins.doc_fragments import (
    _attributes,
    _aws,
    _encryption,
    _image,
    _libvirt,
    _placement,
    _provider,
    _proxmox,
    _signing,
    _storage,
    _transfer,
    _two_providers,
    _two_stores,
    _vsphere,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.values import job_id
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.tests.unit.plugins.modules.module_run import MODULES

COLLECTION = Path(__file__).resolve().parents[4]
FRAGMENTS = {
    "_attributes": _attributes,
    "_aws": _aws,
    "_encryption": _encryption,
    "_image": _image,
    "_libvirt": _libvirt,
    "_placement": _placement,
    "_provider": _provider,
    "_proxmox": _proxmox,
    "_signing": _signing,
    "_storage": _storage,
    "_transfer": _transfer,
    "_two_providers": _two_providers,
    "_two_stores": _two_stores,
    "_vsphere": _vsphere,
}
COMPARED = ("type", "elements", "choices", "required", "default")
SECRET = (
    *("secret", "token", "password", "customer_key"),
    "signing.key",
    "encryption.passphrase",
    *("account_key", "connection_string", "account_contents", "storage.headers"),
)
NOT_SECRET = {
    "aws.access_key",
    "aws.web_identity_token_file",
    "proxmox.api_token_id",
    "proxmox.ssh_private_key_file",
    "placement.key_name",
    "placement.kms_key_id",
    "encryption.passphrase_command",
    "encryption.passphrase_file",
    "key",
    "signing.key_command",
    "signing.key_file",
    "storage.access_key",
    "storage.client_key",
    "storage.kms_key_name",
    "storage.sse_kms_key_id",
    "storage.web_identity_token_file",
    "trusted_keys",
}
ENDS = re.compile(r"^((source|destination|copies_to|image)\.)+")  # before the options of a store

Options = "dict[str, dict[str, Any]]"


@functools.cache
def read_yaml(text: str) -> Any:
    """Once for each text, since reading the documentation of all modules takes seconds. Nobody may change it."""
    return yaml.safe_load(text)


def fragments(module: str) -> Iterator[dict[str, Any]]:
    for name in read_yaml(MODULES[module].DOCUMENTATION)["extends_documentation_fragment"]:
        file, *section = name[len("vmferry.migrate.") :].split(".")
        yield read_yaml(getattr(FRAGMENTS[file].ModuleDocFragment, "".join(section).upper() or "DOCUMENTATION"))


def documented(module: str) -> dict[str, dict[str, Any]]:
    options: dict[str, dict[str, Any]] = {}
    for part in [*fragments(module), read_yaml(MODULES[module].DOCUMENTATION)]:
        options.update(part.get("options") or {})
    return dict(flattened(options, "suboptions"))


def flattened(options: dict[str, Any], inner: str, prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, definition in options.items():
        yield prefix + name, definition
        yield from flattened(definition.get(inner) or {}, inner, f"{prefix}{name}.")


def attributes(module: str) -> dict[str, dict[str, Any]]:
    merged: dict[str, dict[str, Any]] = {}
    for part in [*fragments(module), read_yaml(MODULES[module].DOCUMENTATION)]:
        for name, attribute in (part.get("attributes") or {}).items():
            merged.setdefault(name, {}).update(attribute)
    return merged


def implemented(module: str) -> dict[str, dict[str, Any]]:
    return dict(flattened(MODULES[module].argument_spec().options, "options"))


def essence(definition: dict[str, Any]) -> dict[str, Any]:
    known = {key: definition[key] for key in COMPARED if definition.get(key) not in (None, [], False)}
    return {**known, "default": definition.get("default")}


@pytest.mark.parametrize("module", MODULES)
def test_documentation_and_code_define_the_same_options(module: str) -> None:
    assert {name: essence(one) for name, one in documented(module).items()} == {
        name: essence(one) for name, one in implemented(module).items()
    }


@pytest.mark.parametrize("module", ["export_verify", "vm_export", "vm_import", "vm_migrate"])
def test_what_a_job_id_may_be_is_described_as_it_is_refused_and_accepted(module: str) -> None:
    with pytest.raises(VmferryError) as refused:
        job_id("job_id", "no_id")
    rule = refused.value.hint.removeprefix("It is ").rstrip(".")
    assert rule in " ".join(documented(module)["job_id"]["description"])
    for accepted in ("A" * 8, "z" * 64, "0123456789abcdef", "6F1D2C0E-43a5-4c58-9a51-0c3a0d5b6e77", "nightly-web01"):
        assert job_id("job_id", accepted) == accepted


@pytest.mark.parametrize("module", MODULES)
def test_every_environment_variable_is_documented_where_it_counts(module: str) -> None:
    descriptions = {name: " ".join(one["description"]) for name, one in documented(module).items()}
    for name, definition in implemented(module).items():
        for variable in definition.get("fallback", (None, []))[1]:
            assert f"E({variable})" in descriptions[name]


@pytest.mark.parametrize("module", MODULES)
def test_every_secret_is_masked_and_nothing_else(module: str) -> None:
    for name, definition in implemented(module).items():
        option = ENDS.sub("", name)
        if any(word in option for word in SECRET) and option not in NOT_SECRET:
            assert definition.get("no_log") is True
        else:
            assert definition.get("no_log") is (False if option in NOT_SECRET else None)


@pytest.mark.parametrize("module", MODULES)
def test_no_choice_is_what_yaml_reads_as_something_else(module: str) -> None:
    for definition in implemented(module).values():
        for choice in definition.get("choices", []):
            assert yaml.safe_load(choice) == choice


@pytest.mark.parametrize("module", MODULES)
def test_groups_documentation_and_modules_agree(module: str) -> None:
    groups = read_yaml((COLLECTION / "meta" / "runtime.yml").read_text())["action_groups"]
    members = {f"vmferry.migrate.{group}" for group, modules in groups.items() if module in modules}
    assert set(attributes(module)["action_group"]["membership"]) == members


@pytest.mark.parametrize("module", MODULES)
def test_module_is_in_the_group_of_every_connection_it_takes(module: str) -> None:
    groups = read_yaml((COLLECTION / "meta" / "runtime.yml").read_text())["action_groups"]
    takes = {"all", *({"aws", "image", "libvirt", "proxmox", "storage", "vsphere"} & implemented(module).keys())}
    assert {group for group, modules in groups.items() if module in modules} == takes


@pytest.mark.parametrize("module", MODULES)
def test_every_attribute_says_whether_it_is_supported(module: str) -> None:
    found = attributes(module)
    assert found.keys() >= {"check_mode", "diff_mode", "idempotent", "async", "platform", "action_group"}
    assert all(attribute["support"] in ("full", "partial", "none", "N/A") for attribute in found.values())


@pytest.mark.parametrize("module", MODULES)
def test_examples_use_options_that_exist(module: str) -> None:
    for task in read_yaml(MODULES[module].EXAMPLES):
        for used in MODULES:
            given = task.get(f"vmferry.migrate.{used}", {})
            known = implemented(used)
            assert given.keys() <= {name for name in known if "." not in name}
            for name, value in given.items():
                for one in value if isinstance(value, list) else [value]:
                    if isinstance(one, dict) and "options" in known[name]:
                        assert {f"{name}.{inner}" for inner in one} <= known.keys()


@pytest.mark.parametrize("module", MODULES)
def test_returned_values_are_described(module: str) -> None:
    returned = read_yaml(MODULES[module].RETURN)
    assert {"error", "msg"} <= returned.keys()
    for definition in dict(flattened(returned, "contains")).values():
        assert definition["description"]
        assert definition["type"]
        assert definition["returned"]


def test_a_job_is_described_alike_whatever_it_does() -> None:
    """The plays look at what an export returns."""
    modules = ("vm_export", "vm_import", "vm_migrate", "export_verify")
    described = [
        {name: (what["type"], what["returned"]) for name, what in job["contains"].items()}
        for job in (read_yaml(MODULES[module].RETURN)["job"] for module in modules)
    ]
    assert described == described[:1] * len(modules)
