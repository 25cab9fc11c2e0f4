"""Hearing of writes to sysctl files: of the containers' links, of the ways out, and of all links.

Only forwarding is announced by netlink. For the others there is inotify, which hears of writes
through the same mount of /proc only, and of none after the kernel has dropped a name from its
cache: it makes repairs quick, and the sweep (`agent.sweep`) makes them certain. Watches follow the
links a moment late and a few at a time, so that ADD pays nothing. A link that is renamed gets new
files, also when it is called back, so it is followed anew.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Collection

from weft.agent.events import Log
from weft.kernel.inotify import Inotify
from weft.kernel.sysctl import ROOT
from weft.rows.base import Place, RowKey

AT_ONCE = 40  # directories that are taken up in one turn of the loop: about 1 ms
_CONF = ("net/ipv4/conf", "net/ipv6/conf")
_WHOLE = "all"


class SysctlEar:
    """`heard` gets the key of each file that was written; of the host's own, `host` is called."""

    def __init__(self, heard: Callable[[RowKey], None], host: Callable[[], None], log: Log) -> None:
        self._heard = heard
        self._host = host
        self._log = log
        self._inotify: Inotify | None = None
        self._roots: dict[str, int] = {}
        self._watches: dict[str, list[int]] = {}  # by link
        self._places: dict[int, tuple[str, str]] = {}  # watch -> directory, link
        self._stale: set[str] = set()  # links whose files may be others than those watched
        self._own: frozenset[str] = frozenset()
        self._deaf = False

    def start(self) -> None:
        """Listen, as far as this kernel and the user's limits allow."""
        try:
            self._inotify = Inotify()
        except OSError as error:
            self._unheard(error)
            return
        for path in _CONF:
            try:
                self._roots[path] = os.open(os.path.join(ROOT.decode(), path), os.O_PATH)
            except FileNotFoundError:
                continue  # a kernel without IPv6
        asyncio.get_running_loop().add_reader(self._inotify.fileno(), self._readable)

    def follow(self, links: Collection[str], ways_out: Collection[str]) -> bool:
        """Listen for these links; True where there is more to do than one turn allows."""
        if self._inotify is None or self._deaf:
            return False
        self._own = frozenset((*ways_out, _WHOLE))
        wanted = self._own.union(links)
        self._stale &= wanted
        for link in self._stale & self._watches.keys():
            self._drop(self._inotify, link)
        if wanted == self._watches.keys():
            return False
        for link in self._watches.keys() - wanted:
            self._drop(self._inotify, link)
        new = sorted(wanted - self._watches.keys())
        for link in new[:AT_ONCE]:
            self._take_up(self._inotify, link)
        return len(new) > AT_ONCE and not self._deaf

    @property
    def is_behind(self) -> bool:
        """Whether a link is to be followed anew."""
        return bool(self._stale)

    def renamed(self, link: str) -> None:
        """The link of this name bears, or has borne, another one: `follow` it anew."""
        self._stale.add(link)

    def _take_up(self, inotify: Inotify, link: str) -> None:
        self._stale.discard(link)
        watches = self._watches[link] = []
        for path, root in self._roots.items():
            try:
                # looked up from the directory: from the root it takes ten times as long
                watch = inotify.watch(f"/proc/self/fd/{root}/{link}")
            except OSError as error:
                if error.errno != errno.ENOENT:
                    self._unheard(error)
                continue
            watches.append(watch)
            self._places[watch] = f"{path}/{link}", link
        if not watches:  # it is renamed, or about to be deleted
            self._stale.add(link)

    def _drop(self, inotify: Inotify, link: str) -> None:
        for watch in self._watches.pop(link):
            inotify.forget(watch)
            self._places.pop(watch, None)

    def _readable(self) -> None:
        if self._inotify is None:
            return
        for written in self._inotify.read():
            directory, link = self._places.get(written.watch, ("", ""))
            if not directory or link in self._own:
                self._host()
            else:
                self._heard(("Sysctl", Place.HOST, f"{directory}/{written.name}"))

    def _unheard(self, error: OSError) -> None:
        self._deaf = True
        self._log.event(
            "warning",
            "SysctlsUnheard",
            "node",
            f"changes of sysctls are noticed by the sweep only: {error.strerror} "
            "(fs.inotify.max_user_watches, fs.inotify.max_user_instances)",
        )

    def stop(self) -> None:
        """Stop listening."""
        if self._inotify is not None:
            asyncio.get_running_loop().remove_reader(self._inotify.fileno())
            self._inotify.close()
            self._inotify = None
        for root in self._roots.values():
            os.close(root)
        self._roots.clear()
