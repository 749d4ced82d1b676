# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A secret comes from one of three places, and is told nowhere."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Callable, Mapping

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.vmferry.migrate.plugins.module_utils._ansible import secret_options as options_module
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.argspec import ArgumentSpec, TaskArguments
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.run import run
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.secret_options import (
    LARGEST_SECRET,
    Extent,
    needed_secret,
    secret,
    secret_options,
)

WORD = 'correct horse/battery"staple'
PEM = "-----BEGIN EXAMPLE-----\nMC4CAQAwBQYDK2VwBCIEIAAAAAAAAAAAAAAA\n-----END EXAMPLE-----\n"

Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ask(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ask:
    """What a module tells that looks for a secret `key` below `door`, and repeats what it found."""
    monkeypatch.setattr("ansible.module_utils._internal.is_controller", False)

    def asked(door: Mapping[str, Any], extent: Extent = "line", needed: bool = False) -> dict[str, Any]:
        found: list[bytes | None] = []

        def operation(arguments: TaskArguments, _check_mode: bool) -> dict[str, Any]:
            read = needed_secret if needed else secret
            found.append(read(arguments.below("door"), "key", extent, within="door"))
            return {"told": f"<{(found[0] or b'').decode()}>", "sent": json.dumps((found[0] or b"").decode())}

        spec = ArgumentSpec({"door": {"type": "dict", "options": secret_options("key")}})
        with patch_module_args({"door": door}), pytest.raises(SystemExit):
            run(spec, operation)
        printed = capfd.readouterr().out
        outcome: dict[str, Any] = json.loads(printed)
        return {**outcome, "found": found[0] if found else None, "printed": printed}

    return asked


def hidden_file(folder: Path, text: bytes, mode: int = 0o600) -> str:
    path = folder / "secret"
    path.write_bytes(text)
    path.chmod(mode)
    return str(path)


def printing(text: str) -> list[str]:
    return [sys.executable, "-c", f"print({text!r})"]


def test_it_is_the_value(ask: Ask) -> None:
    assert ask({"key": WORD})["found"] == WORD.encode()


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\nand what else the file says\n"])
def test_it_is_the_first_line_of_a_file(ask: Ask, tmp_path: Path, end: bytes) -> None:
    assert ask({"key_file": hidden_file(tmp_path, WORD.encode() + end)})["found"] == WORD.encode()


def test_it_is_the_first_line_that_a_command_prints(ask: Ask) -> None:
    assert ask({"key_command": printing(f"{WORD}\nurl: example.org")})["found"] == WORD.encode()


def test_a_key_is_all_of_a_file_or_of_what_a_command_prints(ask: Ask, tmp_path: Path) -> None:
    key = PEM.strip().encode()
    assert ask({"key": PEM}, "all")["found"] == key
    assert ask({"key_file": hidden_file(tmp_path, PEM.encode())}, "all")["found"] == key
    assert ask({"key_command": printing(PEM)}, "all")["found"] == key


def test_a_passphrase_of_several_lines_is_refused(ask: Ask) -> None:
    assert "several lines" in ask({"key": "half\nof it"})["msg"]
    assert ask({"key": "whole\n"})["found"] == b"whole"  # as YAML's | ends it


def test_no_shell_reads_the_command(ask: Ask) -> None:
    assert ask({"key_command": ["echo", "$HOME", ";", "id"]})["found"] == b"$HOME ; id"


def test_left_out_is_none_and_needed_is_told(ask: Ask) -> None:
    assert ask({})["found"] is None
    outcome = ask({}, needed=True)
    assert outcome["msg"] == "door.key is missing."
    assert "door.key_command" in outcome["error"]["hint"]


@pytest.mark.parametrize("door", [{"key": ""}, {"key_command": []}])
def test_what_a_template_found_nothing_for_is_not_taken_for_none(ask: Ask, door: Mapping[str, Any]) -> None:
    assert ask(door)["error"]["kind"] == "invalid_config"


def test_two_places_exclude_each_other(ask: Ask, tmp_path: Path) -> None:
    outcome = ask({"key": WORD, "key_file": hidden_file(tmp_path, b"another")})
    assert outcome["msg"] == "door.key and door.key_file exclude each other."


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644])
def test_a_file_for_everybody_is_refused(ask: Ask, tmp_path: Path, mode: int) -> None:
    outcome = ask({"key_file": hidden_file(tmp_path, WORD.encode(), mode)})
    assert "by everybody" in outcome["msg"]
    assert "chmod 600" in outcome["error"]["hint"]


def test_a_file_for_a_group_is_read_as_containers_are_given_theirs(ask: Ask, tmp_path: Path) -> None:
    assert ask({"key_file": hidden_file(tmp_path, WORD.encode(), 0o440)})["found"] == WORD.encode()


def test_what_is_no_file_is_told_at_once(ask: Ask, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "is not a file" in ask({"key_file": str(tmp_path / "pipe")})["msg"]
    assert "No such file" in ask({"key_file": str(tmp_path / "none")})["msg"]


@pytest.mark.parametrize("text", [b"", b"\n", b"\nsecond"])
def test_an_empty_secret_is_refused(ask: Ask, tmp_path: Path, text: bytes) -> None:
    assert "gave nothing" in ask({"key_file": hidden_file(tmp_path, text)})["msg"]


def test_what_is_endless_is_refused(ask: Ask, tmp_path: Path) -> None:
    assert "64 KiB" in ask({"key_file": hidden_file(tmp_path, b"x" * (LARGEST_SECRET + 1))})["msg"]


def test_a_command_that_fails_tells_its_complaint_and_never_its_output(ask: Ask) -> None:
    script = f"import sys; print({WORD!r}); sys.exit('vault is sealed, after ' + {WORD!r})"
    outcome = ask({"key_command": [sys.executable, "-c", script.replace(WORD, "s3cr3t-w0rd")]})
    assert "exit code 1: vault is sealed, after ********" in outcome["msg"]
    assert "s3cr3t-w0rd" not in outcome["msg"] + outcome["error"]["hint"]


def test_a_command_that_is_not_there_is_told(ask: Ask) -> None:
    assert "door.key_command cannot be run: no-such-program" in ask({"key_command": ["no-such-program"]})["msg"]


def test_a_command_that_waits_ends_with_all_it_started(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(options_module, "COMMAND_TIMEOUT", 0.5)
    script = f"sleep 60 & echo $! > {tmp_path / 'child'}; wait"
    assert "within 0.5 seconds" in ask({"key_command": ["sh", "-c", script]})["msg"]
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 5
    while _lives(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _lives(child)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_was_read_is_masked_wherever_the_module_tells_it(ask: Ask, tmp_path: Path) -> None:
    for door in ({"key_file": hidden_file(tmp_path, WORD.encode())}, {"key": WORD}):
        outcome = ask(door)
        assert outcome["found"] == WORD.encode()
        assert "battery" not in outcome["printed"]
    outcome = ask({"key_file": hidden_file(tmp_path, PEM.encode())}, "all")
    assert "MC4CAQAwBQYDK2Vw" not in outcome["printed"]


def test_what_is_not_utf_8_is_refused_and_not_told(ask: Ask, tmp_path: Path) -> None:
    latin = "Größe und Maß".encode("latin-1")
    outcomes = [
        ask({"key_file": hidden_file(tmp_path, latin)}),
        ask({"key_command": ["printf", r"Gr\366\337e"]}),
    ]
    for outcome, option in zip(outcomes, ("key_file", "key_command")):
        assert outcome["error"]["kind"] == "invalid_config"
        assert outcome["msg"] == f"door.{option} is not UTF-8."
