# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's process: the API by TLS, and what tests and the node's commands ask at another port.

`python -m rigs.proxmox.app FOLDER API_PORT CONTROL_PORT NODE RELEASE FIRST_VMID PASSWORD`
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from aiohttp import web
from fakepve.certs import make_cert

from rigs.proxmox.commands import Commands
from rigs.proxmox.control import Control
from rigs.proxmox.node_pve import NodePve

COMMAND_ENDED = 200  # and its exit status, as a status of HTTP


async def serve(folder: Path, ports: tuple[int, int], pve: NodePve) -> None:
    certificate, key, _der = make_cert(str(folder), "pve", hosts=("127.0.0.1",))
    pve.port, control_port = ports
    control = Control(pve, Commands(pve))

    async def answer(request: web.Request) -> web.Response:
        """What the rig cannot do is told with words that a test can read."""
        try:
            if request.match_info["what"] == "command":
                code, said = await control.command(await request.read())
                return web.Response(status=COMMAND_ENDED + code, text=said.rstrip("\n"))
            told = await control.answer(request.match_info["what"], dict(request.query), await request.read())
        except Exception:  # noqa: BLE001 - the test has to see it, whatever it is
            return web.Response(status=500, text=traceback.format_exc(limit=-4))
        return web.Response(body=told if isinstance(told, bytes) else json.dumps(told).encode())

    app = web.Application(client_max_size=1 << 32)
    app.router.add_route("*", "/{what}", answer)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    runner = web.AppRunner(app, access_log=None)
    try:
        await pve.start(certificate, key)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", control_port, shutdown_timeout=0.1).start()
        await ended.wait()
    finally:
        pve.close()


def main() -> None:
    folder, api_port, control_port, node, release, first_vmid, password = sys.argv[1:]
    pve: Any = NodePve(Path(folder), node, int(release), int(first_vmid), password)
    asyncio.run(serve(Path(folder), (int(api_port), int(control_port)), pve))


if __name__ == "__main__":
    main()
