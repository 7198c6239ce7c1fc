"""An event that a service declares: the fact's name and the type of its body."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Event(Generic[T]):
    """A fact of `service`; hand it to :meth:`tenantry.Context.emit`."""

    service: str
    name: str
    type: type[T]
    description: str = ""
