"""How fast bytes may leave: a token bucket, without a clock of its own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class TokenBucket:
    """Holds at most `burst_bytes`, fills by `bytes_per_s`; what is taken beyond that is owed, and waited for."""

    bytes_per_s: float
    burst_bytes: float
    held_bytes: float = 0.0
    filled_at_s: float | None = None

    def take(self, count_bytes: int, now_s: float) -> float:
        """Seconds to wait before so many bytes may leave. Not for several threads at once."""
        if self.filled_at_s is None:
            self.held_bytes, self.filled_at_s = self.burst_bytes, now_s
        filled = self.held_bytes + (now_s - self.filled_at_s) * self.bytes_per_s
        self.held_bytes = min(filled, self.burst_bytes) - count_bytes
        self.filled_at_s = now_s
        return max(0.0, -self.held_bytes / self.bytes_per_s)
