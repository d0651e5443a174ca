"""A queue hands this process as many jobs as it has places for, and not one ticket more.

DBOS counts the tickets of each queue by itself. But STAT jobs may have the places of others, whose tickets are in
another queue, and what is for this machine alone is in two more: a worker that is full by them all would hold tickets
that another worker has a place for.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dicomnode.adapters.queue.tickets import is_urgent
from dicomnode.ports import Admission

if TYPE_CHECKING:
    from dbos import DBOS

logger = logging.getLogger(__name__)


def take_what_there_is_room_for(dbos: DBOS, at_once: Mapping[str, int], admission: Admission) -> bool:
    """`at_once`: queues of jobs, and how many tickets of each at most; False if DBOS cannot be told.

    A queue's thread counts what runs before it takes more. DBOS offers no hook, so that count is replaced;
    test_several_jobs checks that it is still asked. Without it tickets are taken and given back.
    """
    active = getattr(dbos, "_active_workflows_set", None)
    count = getattr(active, "count_for_queue", None)
    if active is None or count is None:
        logger.warning("the queues do not know what there is room for: jobs may wait here while another worker idles")
        return False

    def count_for_queue(queue: str) -> int:
        counted: int = count(queue)
        return counted if queue not in at_once else taken(counted, at_once[queue], admission, queue)

    active.count_for_queue = count_for_queue
    return True


def taken(counted: int, at_once: int, admission: Admission, queue: str) -> int:
    """How many of a queue's tickets count as taken, so that no more are than there are places for.

    Where there is none, more than any limit: another worker may have registered the queue with a larger one.
    """
    places = admission.places(urgent=is_urgent(queue))
    return max(counted, at_once - places) if places else sys.maxsize
