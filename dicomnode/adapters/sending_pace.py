"""Keeps what is sent to a destination below its limit of bytes per second, whatever number of threads sends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from dicomnode.domain.destination import Destination
from dicomnode.domain.token_bucket import TokenBucket

BURST_S = 0.25  # so much of a second's bytes may leave at once


class SendingPaces:
    """One bucket a destination in this process."""

    def __init__(
        self, monotonic: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._monotonic, self._sleep = monotonic, sleep
        self._buckets: dict[tuple[str, int], TokenBucket] = {}
        self._lock = threading.Lock()

    def of(self, destination: Destination) -> Callable[[int], None]:
        """What returns when so many bytes more may leave for it."""
        rate = destination.options.bytes_per_s
        if not rate:
            return _at_once
        with self._lock:
            bucket = self._buckets.setdefault((destination.name, rate), TokenBucket(rate, rate * BURST_S))
        return lambda count_bytes: self._wait(bucket, count_bytes)

    def _wait(self, bucket: TokenBucket, count_bytes: int) -> None:
        with self._lock:
            wait_s = bucket.take(count_bytes, self._monotonic())
        if wait_s > 0:
            self._sleep(wait_s)


def _at_once(count_bytes: int) -> None:
    """There is no limit."""
