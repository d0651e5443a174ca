"""The durable job engine: `migrate(url)` makes its tables, `DbosQueue` takes tickets, `DbosJobEngine` runs them.

The engine itself is imported from `dicomnode.adapters.queue.engine`, since DBOS takes most of a second to import.
"""

from dicomnode.adapters.queue.tickets import DbosQueue, migrate

__all__ = ["DbosQueue", "migrate"]
