"""One tenant's journal as operators handle it: to read, to carry elsewhere, to erase."""

from tenantry.journal.reader import Selection, first_at, from_last, read

__all__ = ["Selection", "first_at", "from_last", "read"]
