"""Writes to sysctls of links are heard of, also after a link was renamed and called back."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

from namespace_fixture import on_a_node

from weft.agent.events import Log
from weft.agent.sysctls import SysctlEar
from weft.rows.base import Place, RowKey

LINK = "wfaaaaaaaaaaaaa"
FILE = f"net/ipv4/conf/{LINK}/accept_redirects"


def _ip(*words: str) -> None:
    subprocess.run(["ip", "link", *words], check=True)


def _write() -> None:
    Path("/proc/sys", FILE).write_text("1")


@on_a_node
def test_a_link_that_was_renamed_and_called_back_is_heard_again() -> None:
    _ip("add", LINK, "type", "veth", "peer", "name", "p0")

    async def main() -> None:
        heard: asyncio.Queue[RowKey] = asyncio.Queue()
        ear = SysctlEar(heard.put_nowait, lambda: None, Log("error"))
        ear.start()
        try:

            async def hears() -> bool:
                _write()
                try:
                    key = await asyncio.wait_for(heard.get(), 0.3)
                except TimeoutError:
                    return False
                return key == ("Sysctl", Place.HOST, FILE)

            ear.follow([LINK], [])
            assert await hears()
            _ip("set", LINK, "name", "stolen0")
            ear.renamed(LINK)
            ear.follow([LINK], [])  # before it is called back
            _ip("set", "stolen0", "name", LINK)
            assert not await hears(), "its files are new ones: who does not follow hears nothing"
            ear.follow([LINK], [])
            assert await hears()
        finally:
            ear.stop()

    asyncio.run(main())
