# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's process: EBS direct by this rig, all other services by moto, and what tests do behind their backs.

`python -m rigs.aws.app PORT FOLDER`
"""

from __future__ import annotations

import json
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from moto import backends
from moto.core import responses as core_responses
from moto.iam.models import get_account_id_from
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from rigs.aws.blocks import Blocks, Disks
from rigs.aws.control import Control
from rigs.aws.ebs import EbsDirect, invalid
from rigs.aws.ec2_disks import Snapshots, teach_disks
from rigs.aws.ec2_images import teach_images
from rigs.aws.export_tasks import ExportTasks, teach_export_tasks
from rigs.aws.faults import Fault, Faults, query_error, refusal_by_query, refusal_of_blocks
from rigs.aws.http_server import CutLine, Server
from rigs.aws.import_tasks import ImportTasks, teach_import_tasks
from rigs.aws.instance_tasks import InstanceTasks, teach_instance_tasks
from rigs.aws.keys import ADMIN_ACCESS_KEY, is_known
from rigs.aws.permissions import needed
from rigs.aws.rest_api import Answer, ApiError

FOREVER = 3600.0  # seconds


# Asked anew for every call: a fifth of the time that one takes.
core_responses.method_names_from_class = cache(core_responses.method_names_from_class)
_MODULES = tuple(backends.list_of_moto_modules())
backends.list_of_moto_modules = lambda: _MODULES


class App:
    def __init__(self, folder: Path) -> None:
        disks = Disks(Blocks(folder / "blocks"))
        teach_disks(disks)
        teach_images(disks)
        tasks = ExportTasks(disks, folder)
        teach_export_tasks(tasks)
        instances = InstanceTasks(tasks)
        teach_instance_tasks(instances)
        imports = ImportTasks(disks, folder)
        teach_import_tasks(imports)
        self.faults = Faults()
        self.calls: list[str] = []
        self.permissions: set[str] = set()
        self._lock = threading.Lock()
        self._ebs = EbsDirect(disks, Snapshots(disks))
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._control = Control(disks, self.faults, self.calls, self.permissions, self._ebs, tasks, instances, imports)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = environ["wsgi.input"].getvalue()
        if environ["PATH_INFO"].startswith("/_rig/"):
            return self._control(environ, body, start_response)
        key, region, service = _signed_by(environ)
        operation = self._operation(environ, service, body)
        fault = None
        if key != ADMIN_ACCESS_KEY:
            with self._lock:
                self.calls.append(f"{service}:{operation}")
                query = environ.get("QUERY_STRING", "")
                self.permissions |= needed(service, operation, environ["PATH_INFO"], query, body)
            fault = self.faults.met(
                operation, f"{environ['PATH_INFO']}?{environ.get('QUERY_STRING', '')} {body[:4096]!r}"
            )
            if service in ("ec2", "ebs", "sts") and key and not is_known(key):
                fault = Fault(operation, "unknown_key")
        return self._answered(environ, start_response, body, (key, region, service), fault)

    def _operation(self, environ: dict[str, Any], service: str, body: bytes) -> str:
        if service == "ebs":
            return str(self._ebs.api.operation(environ["REQUEST_METHOD"], environ["PATH_INFO"])[0].name)
        if service == "s3":
            return str(environ["REQUEST_METHOD"])
        return parse_qs(body.decode(errors="replace")).get("Action", [environ["REQUEST_METHOD"]])[0]

    def _answered(
        self,
        environ: dict[str, Any],
        start_response: Callable[..., Any],
        body: bytes,
        caller: tuple[str, str, str],
        fault: Fault | None,
    ) -> Iterable[bytes]:
        kind = fault.kind if fault else ""
        service = caller[2]
        if fault and kind in ("slow", "hang"):
            time.sleep(fault.seconds if kind == "slow" else FOREVER)
        if kind in ("reset", "hang"):
            raise CutLine
        if service == "ebs":
            answer = self._by_blocks(environ, body, caller, kind)
        elif kind == "truncate":
            return _half(b"".join(self._moto(environ, start_response)))
        elif fault and kind not in ("slow", "lose_answer"):
            answer = refusal_by_query(service, fault)
        elif kind == "lose_answer":
            for _unused in self._moto(environ, lambda *_answer: None):
                pass
            raise CutLine
        else:
            found: Iterable[bytes] = self._moto(environ, start_response)
            return found
        if kind == "lose_answer":
            raise CutLine
        start_response(f"{answer.status} X", [*answer.headers.items(), ("Content-Length", str(len(answer.body)))])
        return _half(answer.body) if kind == "truncate" else [answer.body]

    def _by_blocks(self, environ: dict[str, Any], body: bytes, caller: tuple[str, str, str], kind: str) -> Answer:
        key, region, _service = caller
        api = self._ebs.api
        operation, path = api.operation(environ["REQUEST_METHOD"], environ["PATH_INFO"])
        try:
            if kind in ("throttle", "error", "denied", "expired", "quota", "unknown_key"):
                raise refusal_of_blocks(kind)
            if kind == "tokens":
                block = operation.name == "GetSnapshotBlock"
                raise invalid("INVALID_BLOCK_TOKEN" if block else "INVALID_PAGE_TOKEN", "The token is expired")
            asked = api.read(operation, path, environ, body)
            if kind == "empty":
                return self._ebs.empty_page(operation, asked, region, get_account_id_from(key))
            answer = self._ebs.answer(operation, asked, region, get_account_id_from(key))
        except ApiError as error:
            return api.error(operation, error)
        if kind == "corrupt":
            wrong = bytes([answer.body[0] ^ 1]) + answer.body[1:]
            return Answer(answer.status, wrong, answer.headers)
        return answer


def _half(body: bytes) -> Iterator[bytes]:
    yield body[: len(body) // 2]
    raise CutLine


def _signed_by(environ: dict[str, Any]) -> tuple[str, str, str]:
    """The access key, the region and the service that a request is signed for; of one that is not signed, STS."""
    words = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].partition(",")[0].split("/")
    return (words[0], words[2], words[3]) if len(words) == 5 else ("", "us-east-1", "sts")


def main() -> None:
    port, folder = sys.argv[1:]
    app = App(Path(folder))

    def guarded(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """What the rig cannot do is told with words that a test can read."""
        try:
            return app(environ, start_response)
        except CutLine:
            raise
        except Exception:  # noqa: BLE001 - the test has to see it, whatever it is
            traceback.print_exc()
            text = traceback.format_exc(limit=-3)
            answer = query_error("ec2", "InternalError", f"A fault of the rig: {text}", 500)
            if _signed_by(environ)[2] == "ebs":
                words = json.dumps({"Message": f"A fault of the rig: {text}"}).encode()
                answer = Answer(500, words, {"x-amzn-ErrorType": "InternalServerException"})
            start_response(f"{answer.status} X", [*answer.headers.items(), ("Content-Length", str(len(answer.body)))])
            return [answer.body]

    Server(int(port), guarded).serve_forever()


if __name__ == "__main__":
    main()
