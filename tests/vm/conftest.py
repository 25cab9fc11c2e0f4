"""The guest of test_users_kernel begins beside the pure tests, where they are run before it.

They need one processor and hardly notice that the other one is busy; by the time the last of them
has passed, the guest has done much of its work. It gives way to them meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import guest
import pytest

PURE = ("tests/laws/", "tests/unit/")
ASKS = "begun_guest"  # the fixture by which a test asks for the guest


class Beside:
    """The guest of a run of tests: begun once, ended with the run."""

    def __init__(self, begin: Callable[[], guest.Guest]) -> None:
        self._begin = begin
        self._guest: guest.Guest | None = None

    def begun(self) -> guest.Guest:
        """The guest, begun now if it was not."""
        if self._guest is None:
            self._guest = self._begin()
        return self._guest

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        if self._guest is None and nodeid.startswith(PURE):
            with suppress(Exception):  # its own test begins it again, and says why it cannot
                self.begun()

    def pytest_sessionfinish(self) -> None:
        if self._guest is not None:
            self._guest.close()
            self._guest = None


BESIDE = pytest.StashKey[Beside]()


def pytest_collection_finish(session: pytest.Session) -> None:
    for item in session.items:
        if isinstance(item, pytest.Function) and ASKS in item.fixturenames and not guest.missing():
            session.config.stash[BESIDE] = Beside(item.module.begin)
            session.config.pluginmanager.register(session.config.stash[BESIDE])
            return


@pytest.fixture(scope="session")
def begun_guest(pytestconfig: pytest.Config) -> guest.Guest:
    """The guest, which may have begun before; it is ended with the run of tests."""
    return pytestconfig.stash[BESIDE].begun()
