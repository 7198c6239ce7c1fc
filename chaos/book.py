"""What a handler writes down of its effects: a book of rows, in the order in which they happened.

Both the mesh's service and the plain worker keep one for each tenant, so that one oracle reads
both. This imports nothing of the mesh.
"""

from __future__ import annotations

from msgspec import Struct

TRIES = 8
"""How often a message is tried before it is given up."""

BEGINNINGS = "beginnings.jsonl"
"""Where a handler writes that it begins a killer, before it dies: a line of JSON for each time."""

FULL = 40
"""Rows that a book holds; then its older half becomes a page of its own."""


class Task(Struct, frozen=True, kw_only=True):
    """The body of a command: who it is from, and how its handling shall go."""

    tenant: str
    producer: str
    sequence: int
    kind: str = "plain"
    """plain, slow, flaky, later, reject, poison or killer (which ends its worker, each time)."""
    fails: int = 0
    """How many tries of a flaky one fail."""
    seconds: float = 0.0
    """How long a slow one takes, or how much later the rest of a later one comes."""


class Done(Struct, frozen=True, kw_only=True):
    """The body of what a handled command leaves behind: an event, and a command for later."""

    tenant: str
    producer: str
    sequence: int


class Beginning(Struct, frozen=True, kw_only=True):
    """One beginning of a killer. `at` is in seconds since the epoch, `pid` who is about to die."""

    at: float
    pid: int
    tenant: str
    producer: str
    sequence: int


class Count(Struct, frozen=True):
    """How many messages had their effect. Nobody looks whether one had it before."""

    n: int = 0


class Row(Struct, frozen=True, array_like=True):
    """One effect. `message` is the id of the message that had it, `pid` who wrote it."""

    tenant: str
    producer: str
    sequence: int
    message: str
    pid: int


class Book(Struct, frozen=True):
    """The newest rows; `page` is how many pages of older ones there are."""

    page: int = 0
    rows: tuple[Row, ...] = ()

    def has(self, message: str) -> bool:
        """Whether this message had its effect already, as far back as the book goes."""
        return any(row.message == message for row in self.rows)

    @property
    def full(self) -> bool:
        """Whether a page must be put away before the next row."""
        return len(self.rows) >= FULL

    def put_away(self) -> tuple[str, tuple[Row, ...], Book]:
        """The next page's name and rows, and the book without them."""
        half = FULL // 2
        return f"page.{self.page}", self.rows[:half], Book(self.page + 1, self.rows[half:])

    def add(self, row: Row) -> Book:
        """The book with one more row."""
        return Book(self.page, (*self.rows, row))
