"""What lives for the length of a `with` block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self


class Scope(ABC):
    """Given back at the end of a `with` block, however that ends."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Give back what it holds."""
