# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plays of examples/, with the variables that they say may be given."""

from __future__ import annotations

import json
import shutil

from engine.exports.keys import key, pem

from .playing import ROOT, Stage

BODY = pem(1).decode().splitlines()[1]  # of the private key


def test_an_export_is_watched_where_its_records_are_and_ansible_keeps_nothing_of_it(stage: Stage) -> None:
    names = ("vm", "url", "libvirt", "state_dir")
    given = {**{name: value for name, value in stage.options().items() if name in names}, "look_every": 1}
    playbook = ROOT / "examples/watch_an_export.yml"
    play = stage.play(playbook=playbook, arguments=["-e", json.dumps(given)]).wait()
    assert stage.record()["phase"] == "ready"
    assert f"file://{stage.store}/{stage.vm}-" in play.output
    assert [path for path in stage.async_dir.rglob("*") if path.is_file()] == []


def test_a_signed_backup_is_verified_and_its_key_is_nowhere(stage: Stage) -> None:
    given = {name: value for name, value in stage.options().items() if name in ("vm", "url", "libvirt")}
    keys = {"signing_key": pem(1).decode(), "signing_public_key": key(1).public_key}
    variables = stage.folder / "variables.json"
    variables.write_text(json.dumps({**given, **keys}))
    environment = {"VMFERRY_STATE_DIR": str(stage.state), "LIBVIRT_DEFAULT_URI": stage.rig.uri}
    playbook, arguments = ROOT / "examples/signed_backup.yml", ["-e", f"@{variables}", "-vvv"]
    play = stage.play(playbook=playbook, arguments=arguments, environment=environment).wait()
    (manifest,) = stage.store.glob("*/*/manifest.json")
    assert json.loads(manifest.read_text())["x_vmferry"]["signatures"][0]["public_key"] == key(1).public_key
    assert '"signature": "valid"' in play.output
    variables.unlink()
    assert BODY not in play.output
    assert not [path for path in stage.folder.rglob("*") if path.is_file() and BODY.encode() in path.read_bytes()]


def test_an_encrypted_backup_is_opened_again_wherever_its_secrets_come_from(stage: Stage) -> None:
    given = {name: value for name, value in stage.options().items() if name in ("vm", "url", "libvirt")}
    word, secrets, variables = "correct horse battery", stage.folder / "secrets", stage.folder / "variables.json"
    secrets.mkdir(mode=0o700)
    for name, text in (("passphrase", word), ("signing.pem", pem(1).decode())):
        (secrets / name).write_text(text)
        (secrets / name).chmod(0o600)
    vault = {"backup_passphrase": word, "signing_key": pem(1).decode()}
    host = {
        "passphrase_from": "file",
        "passphrase_of_file": {"passphrase_file": str(secrets / "passphrase")},
        "key_from": "command",
        "key_of_command": {"key_command": ["openssl", "pkey", "-in", str(secrets / "signing.pem")]},
    }
    environment = {"VMFERRY_STATE_DIR": str(stage.state), "LIBVIRT_DEFAULT_URI": stage.rig.uri}
    for told in (vault, host):
        variables.write_text(json.dumps({**given, "signing_public_key": key(1).public_key, **told}))
        playbook, arguments = ROOT / "examples/encrypted_backup.yml", ["-e", f"@{variables}", "-vvv"]
        play = stage.play(playbook=playbook, arguments=arguments, environment=environment).wait()
        assert word not in play.output
        assert BODY not in play.output
    (manifest,) = stage.store.glob("*/*/manifest.json")
    own = json.loads(manifest.read_text())["x_vmferry"]
    assert [one["by"] for one in own["signatures"]] == ["key", "passphrase"]
    assert '"encryption": "luks"' in play.output
    assert '"signature": "valid"' in play.output
    variables.unlink()
    shutil.rmtree(secrets)
    stored = [path.read_bytes() for path in stage.folder.rglob("*") if path.is_file()]
    assert not [text for text in stored if word.encode() in text or BODY.encode() in text]
