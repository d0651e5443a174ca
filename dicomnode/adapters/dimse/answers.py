"""Answers are for whoever asked: pynetdicom's own thread of an association takes one from the caller now and then."""

from __future__ import annotations

from typing import Any

from pynetdicom.association import Association


def leave_answers_to_the_caller(association: Association) -> None:
    """Of an association that we asked for.

    pynetdicom looks for requests of the peer in a thread beside the caller's. While the caller asks, it is to pause,
    but it says that it does a moment before it looks whether it should (`_run_reactor`, `_reactor_checkpoint`): a
    thread that the machine holds up in that moment takes the answer, and the caller waits until the time is over. So
    that thread is given no answers, which name what they respond to (PS3.7 E.1), and no empty message, by which the
    caller is told that the association was aborted.
    """
    provider = association.dimse
    take = provider.get_msg

    def get_msg(block: bool = False) -> Any:
        if not block:
            _, message = provider.peek_msg()
            if message is None or message.MessageIDBeingRespondedTo is not None:
                return None, None
        return take(block)

    provider.get_msg = get_msg  # type: ignore[method-assign]
