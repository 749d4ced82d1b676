# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""With keys that are trusted, nothing acts on an export that none of them signed; and what rewrites one signs it."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from engine.exports.keys import key, signing, trusting
from engine.exports.shelves import clean_up, rules
from engine.operations.one_vm import VM

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.encryption import Keyring
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.naming import export_id, iso_time
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.seals import UNCHECKED, Seals
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.cleaning.fold_export import Merger
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.export_vm import PHASES_WITH_COPIES
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.exporting.export_copies import with_copies
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.import_vm import _Import
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    ExportRequest,
    ImportRequest,
    ProviderSpec,
    StoreSpec,
    TransferOptions,
    VerifyRequest,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.running_job import RunningJob
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.list_exports import list_exports
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.verify_export import verify_export
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Placement
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store

from .chains import HOME, Chain, Guest, assert_whole, export

Change = Callable[[dict[str, Any]], object]


class Signed:
    """A full export and four increments in a folder, all signed with key 1."""

    def __init__(self, folder: Path, load: Callable[[Store], Chain]) -> None:
        self.folder, self.root = folder, folder / "store"
        self.root.mkdir()
        self.spec = StoreSpec(self.root.as_uri())
        self.store = open_store(self.spec.url, {})
        self.chain = load(self.store)
        self.ids = self.chain.ids
        for made in self.ids:
            self.path(made).write_bytes(signing(1).seal(self.path(made).read_bytes()))

    def path(self, made: str) -> Path:
        return self.root / HOME / made / "manifest.json"

    def change(self, made: str, how: Change) -> None:
        document = json.loads(self.path(made).read_text())
        how(document["x_vmferry"])
        self.path(made).write_text(json.dumps(document))

    def strip(self, made: str) -> None:
        self.change(made, lambda own: own.pop("signatures"))

    @property
    def options(self) -> TransferOptions:
        return TransferOptions(state_dir=str(self.folder / "state"), max_retries=0)

    def signatures(self, trust: Seals) -> list[str]:
        return [one["signature"] for one in self.listed(trust)["exports"]]

    def listed(self, trust: Seals, vm: str = "", export: str = "", statistics: bool = False) -> dict[str, Any]:
        return list_exports(self.spec, vm, export, [], "", statistics, trust)

    def import_(self, trust: Seals, **asked: Any) -> list[str]:
        """What the provider was asked for by check mode's whole preflight."""
        calls: list[str] = []
        provider = SimpleNamespace(
            clean_up_imports=lambda: [],
            imported=lambda name, folder="": None,
            check_import=lambda *_unused: calls.append("check_import") or [],
        )
        placement = Placement(name="web02")
        request = ImportRequest(
            ProviderSpec("libvirt"), self.spec, placement, seals=trust, transfer=self.options, **asked
        )
        with RunningJob.start("import", self.options, "web02", self.spec.url, {"importing": 1.0}, True) as job:
            _Import(request, job, provider, self.store).run(True)  # type: ignore[arg-type]
        return calls

    def verify(self, trust: Seals, level: Any = "manifest", **asked: Any) -> dict[str, Any]:
        return verify_export(VerifyRequest(self.spec, level, seals=trust, transfer=self.options, **asked), False)

    def copy_to(self, target: Path, trust: Seals) -> dict[str, Any]:
        target.mkdir(exist_ok=True)
        to = (StoreSpec(target.as_uri()),)
        request = ExportRequest(ProviderSpec("libvirt"), self.spec, "web01", copies_to=to, seals=trust)
        found = {"id": self.ids[-1], "vm": {"id": VM.id}, "url": f"{self.spec.url}/{HOME}/{self.ids[-1]}"}
        with (
            RunningJob.start("export", self.options, "web01", self.spec.url, PHASES_WITH_COPIES, False) as job,
            closing(job.open_store(self.spec)) as store,
        ):
            return with_copies(request, job, store, {"changed": False, "export": found, "warnings": []})


@pytest.fixture
def signed(tmp_path: Path, chain: Callable[[Store], Chain]) -> Signed:
    return Signed(tmp_path, chain)


def forge(own: dict[str, Any]) -> None:
    own["disks"][0]["object_proof"]["parts"][0]["sha256"] = "00" * 32


def test_an_export_is_signed_and_what_stands_on_it_too(tmp_path: Path) -> None:
    spec, guest, state = StoreSpec((tmp_path / "store").as_uri()), Guest(), tmp_path / "state"
    (tmp_path / "store").mkdir()
    first = export(spec, guest, state, seals=signing(1))["export"]
    guest.write_some()
    second = export(spec, guest, state, seals=signing(1))["export"]
    assert (first["mode"], second["mode"], second["parent"]) == ("full", "incremental", first["id"])
    for made in (first, second):
        assert (made["signature"], made["signed_by"]) == ("valid", [key(1).public_key])
    guest.write_some()
    export(spec, guest, state, mode="incremental", seals=signing(2, 1))  # the next key, which trusts the first
    told = list_exports(spec, "", "", [], "", False, trusting(1))["exports"]
    assert [one["signature"] for one in told] == ["valid", "valid", "invalid"]
    assert told[2]["signed_by"] == [key(2).public_key]
    unsigned = export(spec, guest, state, mode="full")["export"]
    assert (unsigned["signature"], unsigned["signed_by"]) == ("none", [])


def unread(*signers: Any, trusted: int = 1) -> Seals:
    rings = [one for one in signers if isinstance(one, Keyring)]
    return Seals(signers, trusting(trusted).trusts, keyring=rings[0] if rings else None)


@pytest.mark.parametrize("check_mode", [False, True])
@pytest.mark.parametrize("how", ["trusted_keys alone", "another key", "encryption"])
def test_an_export_that_its_own_task_would_refuse_is_not_begun(tmp_path: Path, how: str, check_mode: bool) -> None:
    (tmp_path / "store").mkdir()
    spec, guest = StoreSpec((tmp_path / "store").as_uri()), Guest()
    guest.reading = lambda: pytest.fail("the disks were read")
    signers = {"trusted_keys alone": (), "another key": (key(2),), "encryption": (Keyring(b"a passphrase", False),)}[
        how
    ]

    def act() -> str:
        told = export(spec, guest, tmp_path / "state", check_mode, seals=unread(*signers))
        return " ".join(f"{one['kind']}: {one['message']} {one['hint']}" for one in told["findings"])

    if check_mode and how == "encryption":  # once it is known which chain it would be of
        assert re.search("invalid_config: The manifest that this task would write is signed by.*signing", act())
    else:
        with pytest.raises(VmferryError, match=r"The manifest that this task would write is (not )?signed") as refused:
            act()
        assert (refused.value.kind, refused.value.phase) == ("invalid_config", "validating")
        assert "signing" in refused.value.hint
    assert list((tmp_path / "store").rglob("*")) == []


def test_an_encrypted_export_is_made_where_the_key_that_signs_it_is_trusted(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    spec, guest = StoreSpec((tmp_path / "store").as_uri()), Guest()
    made = export(spec, guest, tmp_path / "state", seals=unread(key(1), Keyring(b"a passphrase", False)))
    assert made["export"]["signature"] == "valid"


def test_no_increment_stands_on_what_is_not_signed(tmp_path: Path) -> None:
    spec, guest, state = StoreSpec((tmp_path / "store").as_uri()), Guest(), tmp_path / "state"
    (tmp_path / "store").mkdir()
    old = export(spec, guest, state, name="kept")["export"]
    with pytest.raises(VmferryError, match="No increment of web01 can be taken"):
        export(spec, guest, state, mode="incremental", seals=signing(1))
    result = export(spec, guest, state, name="kept", seals=signing(1))
    assert (result["changed"], result["export"]["mode"]) == (True, "full")
    assert [text for text in result["warnings"] if old["id"] in text and "is not signed. It does not count" in text]
    assert export(spec, guest, state, name="kept", seals=signing(1))["changed"] is False


def test_a_parent_that_loses_its_signature_meanwhile_gets_no_child(tmp_path: Path) -> None:
    spec, guest, state = StoreSpec((tmp_path / "store").as_uri()), Guest(), tmp_path / "state"
    (tmp_path / "store").mkdir()
    full = export(spec, guest, state, seals=signing(1))["export"]
    manifest = tmp_path / "store" / HOME / full["id"] / "manifest.json"
    guest.write_some()

    def strip() -> None:
        document = json.loads(manifest.read_text())
        document["x_vmferry"].pop("signatures", None)
        manifest.write_text(json.dumps(document))

    guest.reading = strip
    with pytest.raises(VmferryError, match="is not signed"):
        export(spec, guest, state, mode="incremental", seals=signing(1))
    assert list((tmp_path / "store").glob("*/*/manifest.json")) == [manifest]


@pytest.mark.parametrize(
    ("which", "how"), [(0, "forged"), (2, "stripped"), (2, "of another key"), (4, "forged"), (4, "stripped")]
)
def test_nothing_acts_on_a_chain_with_one_manifest_that_is_not_to_be_trusted(
    signed: Signed, which: int, how: str
) -> None:
    trust, made = trusting(1), signed.ids[which]
    assert signed.import_(trust) == ["check_import"]
    assert signed.verify(trust)["problems"] == []
    if how == "forged":
        signed.change(made, forge)
    elif how == "stripped":
        signed.strip(made)
    else:
        signed.path(made).write_bytes(signing(2).seal(signed.path(made).read_bytes()))
    why = {"forged": "was changed since", "stripped": "is not signed", "of another key": "is not trusted"}[how]
    with pytest.raises(VmferryError, match=f"{made}/manifest.json.*{why}") as refused:
        signed.import_(trust)
    assert refused.value.kind == "checksum_mismatch"
    if which == 4:
        with pytest.raises(VmferryError, match=why):
            signed.import_(trust, source_vm=VM.as_dict())
    with pytest.raises(VmferryError, match=why) as failed:
        signed.verify(trust)
    assert [one["export"] for one in failed.value.done["problems"]] == [made]
    with pytest.raises(VmferryError, match=why):
        signed.copy_to(signed.folder / "copies", trust)
    assert signed.signatures(trust)[which] == ("none" if how == "stripped" else "invalid")
    assert signed.signatures(UNCHECKED)[which] == ("none" if how == "stripped" else "unchecked")
    assert signed.import_(UNCHECKED) == ["check_import"], "who asks for no signature gets what is there"


@pytest.mark.parametrize("vm", ["web01", VM.id])
@pytest.mark.parametrize("place", ["the store", "the folder of the VM", "a folder of an older name"])
def test_another_name_in_a_manifest_does_not_hide_the_newest_export(signed: Signed, place: str, vm: str) -> None:
    at = signed.path(signed.ids[-1])
    if place == "the folder of the VM":
        signed.spec = StoreSpec((signed.root / HOME).as_uri())
        signed.store = open_store(signed.spec.url, {})
    elif place == "a folder of an older name":
        old = signed.root / HOME.replace("web01", "web00")
        (signed.root / HOME).rename(old)
        at = old / signed.ids[-1] / "manifest.json"
    assert signed.import_(trusting(1), vm=vm) == ["check_import"]
    document = json.loads(at.read_text())
    document["x_vmferry"]["machine"].update(name="db01", id="f" * 8)
    at.write_text(json.dumps(document))
    for act in (signed.import_, signed.verify):
        with pytest.raises(VmferryError, match=f"{signed.ids[-1]}/manifest.json was changed since"):
            act(trusting(1), vm=vm)


@pytest.mark.parametrize("place", ["its folder", "a folder of an older name"])
def test_an_export_whose_vm_was_changed_is_told_where_the_exports_of_a_vm_are_listed(
    signed: Signed, place: str
) -> None:
    home = signed.root / HOME
    if place != "its folder":
        home = home.rename(signed.root / HOME.replace("web01", "web00"))
    at = home / signed.ids[-1] / "manifest.json"
    document = json.loads(at.read_text())
    document["x_vmferry"]["machine"].update(name="db01", id="f" * 8)
    at.write_text(json.dumps(document))
    told = signed.listed(trusting(1), vm="web01")
    assert [one["id"] for one in told["exports"]] == signed.ids[:-1]
    (broken,) = told["broken"]
    assert broken["url"] == at.parent.as_uri()
    assert "was changed since" in broken["msg"]
    assert signed.listed(UNCHECKED, vm="web01")["broken"] == []


def test_what_claims_to_be_of_a_vm_is_listed_and_counts_as_nothing_that_is_there(signed: Signed) -> None:
    later = time.time() + 60
    forged = export_id(later, "0000000f")
    folder = signed.root / "elsewhere" / forged
    shutil.copytree(signed.path(signed.ids[0]).parent, folder)
    document = json.loads((folder / "manifest.json").read_text())
    document["x_vmferry"].update(export_id=forged, name="monthly", taken_at=iso_time(later))
    (folder / "manifest.json").write_text(json.dumps(document))
    told = signed.listed(trusting(1), vm="web01", statistics=True)
    assert {one["id"]: one["signature"] for one in told["exports"]} == {
        **dict.fromkeys(signed.ids, "valid"),
        forged: "invalid",
    }
    assert (told["broken"], told["exports"][-1]["id"]) == ([], forged)
    whole = signed.listed(trusting(1), vm="web01", statistics=True)["statistics"]
    assert (whole["exports"], whole["untrusted"]) == (5, 1)
    assert whole["newest"] == told["exports"][-2]["taken_at"]
    for asked in (forged, "monthly"):
        assert [one["id"] for one in signed.listed(UNCHECKED, export=asked)["exports"]] == [forged]
        with pytest.raises(VmferryError) as refused:
            signed.listed(trusting(1), export=asked)
        assert refused.value.kind == ("checksum_mismatch" if asked == forged else "not_found")
    unchecked = signed.listed(UNCHECKED, vm="web01", statistics=True)["statistics"]
    assert (unchecked["exports"], unchecked["untrusted"]) == (6, 0)


def test_an_export_of_another_vm_in_the_folder_of_this_one_is_no_reason_to_stop(signed: Signed) -> None:
    at = signed.path(signed.ids[-1])
    document = json.loads(at.read_text())
    document["x_vmferry"]["machine"].update(name="db01", id="f" * 8)
    at.write_bytes(signing(1).seal(json.dumps(document).encode()))
    assert signed.verify(trusting(1), vm="web01")["export"]["id"] == signed.ids[-2]


def test_a_parent_that_was_replaced_by_another_signed_export_is_found(signed: Signed) -> None:
    full, first, second, *_unused = signed.ids
    shutil.copy(signed.path(first), signed.path(second))
    with pytest.raises(VmferryError, match="belongs to another export"):
        signed.import_(trusting(1))
    shutil.rmtree(signed.path(second).parent)
    signed.path(first).parent.rename(signed.path(second).parent)
    with pytest.raises(VmferryError, match="belongs to another export"):
        signed.import_(trusting(1), export=second)
    del full


def test_an_older_export_under_the_url_of_a_newer_one_is_found(signed: Signed) -> None:
    full, first, *_unused = signed.ids
    shutil.rmtree(signed.path(first).parent)
    shutil.copytree(signed.path(full).parent, signed.path(first).parent)
    signed.spec = StoreSpec(signed.path(first).parent.as_uri())
    signed.store = open_store(signed.spec.url, {})
    with pytest.raises(VmferryError, match="belongs to another export"):
        signed.import_(trusting(1))


def test_copies_have_the_signature_of_the_export_and_need_no_key(signed: Signed) -> None:
    target = signed.folder / "copies"
    assert signed.copy_to(target, UNCHECKED)["copies"][0]["exports"] == signed.ids
    copies = list_exports(StoreSpec(target.as_uri()), "", "", [], "", False, trusting(1))["exports"]
    assert [one["signature"] for one in copies] == ["valid"] * 5
    text = (target / HOME / signed.ids[-1] / "manifest.json").read_text()
    assert str(target) in text
    assert str(signed.root) not in text
    assert signed.copy_to(target, trusting(1))["changed"] is False
    shutil.copy(signed.path(signed.ids[0]), target / HOME / signed.ids[-1] / "manifest.json")
    with pytest.raises(VmferryError):
        signed.copy_to(target, trusting(1))


def test_a_verification_fills_in_checksums_without_the_key(signed: Signed) -> None:
    signed.verify(UNCHECKED, "stored")
    assert "checksum" in json.loads(signed.path(signed.ids[-1]).read_text())["disks"][0]
    assert signed.signatures(trusting(1)) == ["valid"] * 5


def test_what_is_merged_is_signed_again(signed: Signed) -> None:
    result = clean_up(signed.store, max_count=2, merge=True, seals=Seals((key(1),)))
    assert [one["id"] for one in result["merged"]] == [signed.ids[3]]
    assert assert_whole(signed.store, signed.chain) == signed.ids[3:]
    assert signed.signatures(trusting(1)) == ["valid", "valid"]
    assert signed.import_(trusting(1)) == ["check_import"]


@pytest.mark.parametrize("check_mode", [True, False])
def test_a_merge_without_the_key_fails_and_changes_nothing(signed: Signed, check_mode: bool) -> None:
    before = {path: path.read_bytes() for path in signed.root.rglob("*") if path.is_file()}
    with pytest.raises(VmferryError, match="would lose its signature by key") as refused:
        clean_up(signed.store, check_mode=check_mode, max_count=2, merge=True)
    assert refused.value.kind == "invalid_config"
    assert {path: path.read_bytes() for path in signed.root.rglob("*") if path.is_file()} == before
    assert clean_up(signed.store, max_count=2)["changed"] is False, "who does not merge needs no key"
    assert clean_up(signed.store, exports=(signed.ids[4],))["deleted"] == [signed.ids[4]]


@pytest.mark.parametrize("which", [0, 2, 3])
@pytest.mark.parametrize("change", [forge, lambda own: own.pop("signatures")], ids=["forged", "stripped"])
def test_no_merge_signs_what_was_not_signed_well(signed: Signed, which: int, change: Change) -> None:
    signed.change(signed.ids[which], change)
    into = signed.path(signed.ids[3])
    before = into.read_bytes()
    if which == 3 and change is not forge:  # then it is an export that nobody vouches for, before and after
        clean_up(signed.store, max_count=2, merge=True, seals=Seals((key(1),)))
        assert signed.signatures(trusting(1)) == ["none", "valid"]
        return
    with pytest.raises(VmferryError, match=r"was changed since|is not signed"):
        clean_up(signed.store, max_count=2, merge=True, seals=Seals((key(1),)))
    assert into.read_bytes() == before


def test_a_merge_of_what_another_key_signed_needs_trust_in_that(signed: Signed) -> None:
    with pytest.raises(VmferryError, match="which is not trusted"):
        clean_up(signed.store, max_count=2, merge=True, seals=Seals((key(2),)))
    clean_up(signed.store, max_count=2, merge=True, seals=signing(2, 1))
    assert signed.signatures(trusting(2)) == ["valid", "invalid"]


def test_a_merge_that_died_halfway_is_finished_by_who_has_the_key(
    signed: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_unused: object) -> None:
        raise VmferryError("network", "gone")

    with monkeypatch.context() as patched:
        patched.setattr(Merger, "_swap", die)
        with pytest.raises(VmferryError):
            clean_up(signed.store, max_count=2, merge=True, seals=Seals((key(1),)))
    assert_whole(signed.store, signed.chain)
    with pytest.raises(VmferryError, match="would lose its signature"):
        clean_up(signed.store, max_age=86400.0)
    assert_whole(signed.store, signed.chain)
    folding = signed.path(signed.ids[3]).with_name("folding.json")
    told = json.loads(folding.read_text())
    planned = json.loads(told["manifest"])
    forge(planned["x_vmferry"])
    folding.write_text(json.dumps({**told, "manifest": json.dumps(planned)}))
    with pytest.raises(VmferryError, match="was changed since"):
        clean_up(signed.store, max_age=86400.0, seals=Seals((key(1),)))
    with pytest.raises(VmferryError, match="was changed since"):
        signed.import_(trusting(1))
    folding.write_text(json.dumps(told))
    clean_up(signed.store, max_age=86400.0, seals=Seals((key(1),)))
    assert signed.signatures(trusting(1))[-2:] == ["valid", "valid"]
    assert_whole(signed.store, signed.chain)


def test_forged_exports_push_no_signed_one_out(signed: Signed) -> None:
    for number in range(3):
        made = export_id(time.time(), f"0000000{number}")
        folder = signed.root / HOME / made
        shutil.copytree(signed.path(signed.ids[0]).parent, folder)
        told = {"export_id": made, "taken_at": iso_time(time.time())}
        signed.change(made, lambda own, told=told: own.update(told))
    result = clean_up(signed.store, max_count=2, seals=trusting(1))
    assert (result["changed"], len(result["broken"])) == (False, 3)
    assert set(rules(result)) == set(signed.ids)
    fooled = clean_up(signed.store, check_mode=True, max_count=2)
    assert sorted(fooled["deleted"])[: len(signed.ids)] == signed.ids, "as it goes where nobody is trusted"
