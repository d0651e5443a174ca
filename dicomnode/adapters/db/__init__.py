"""The node's business state in a database: `migrate(url)` makes its tables, `open_state(url, queue)` opens it."""

from dicomnode.adapters.db.migration import migrate
from dicomnode.adapters.db.repositories import SqlState, open_state

__all__ = ["SqlState", "migrate", "open_state"]
