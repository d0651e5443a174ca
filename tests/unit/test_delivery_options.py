"""What a destination can be told, what makes no sense, and that no secret is among it."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from dicomnode.domain.commitment_wish import (
    SETTLED_AFTER_S,
    CommitmentWish,
    result_words,
    settle,
    tell_pause_s,
)
from dicomnode.domain.delivery_failure import WORDS, FailureKind, failure_words, is_of_the_destination
from dicomnode.domain.delivery_options import DeliveryOptions, Wish, as_document, parse_options, parse_rate
from dicomnode.domain.destination import Destination, parse_dimse, parse_stow
from dicomnode.domain.outage import Health, lasted
from dicomnode.domain.proof import PROOF_GIVE_UP_AFTER_S, Reference, ask_pause_s
from dicomnode.errors import InvalidDestination

PACS, WEB = parse_dimse("PACS@192.0.2.1:104"), parse_stow("https://192.0.2.1/dicom-web")
FULL = DeliveryOptions(
    verify=Wish.YES,
    bytes_per_s=2_000_000,
    associations=3,
    user="node",
    password="file:/run/secrets/pacs",
    certificate="/etc/node.pem",
    key="/etc/node.key",
    ca_file="/etc/ca.pem",
)


def test_options_are_kept_as_json_and_what_is_as_by_default_is_left_out() -> None:
    assert parse_options(json.loads(json.dumps(as_document(FULL)))) == FULL
    assert as_document(DeliveryOptions()) == {}
    assert parse_options(None) == parse_options({"of a later version": 1}) == DeliveryOptions()


@pytest.mark.parametrize(
    ("address", "options", "words"),
    [
        (WEB, {"token": "s3cret"}, "--token: a secret is not given itself, but where it is found"),
        (WEB, {"user": "a", "password": "hunter2"}, "--password: a secret is not given itself"),
        (WEB, {"user": "a"}, "--user: --user and --password go together"),
        (WEB, {"password": "env:X"}, "--password: --user and --password go together"),
        (WEB, {"user": "a:b", "password": "env:X"}, "no colon"),
        (WEB, {"user": "a", "password": "env:X", "token": "env:Y"}, "give one of --token and --user"),
        (WEB, {"key": "/k"}, "--client-key: goes with --client-certificate"),
        (WEB, {"ca_file": "relative.pem"}, "--ca-file: 'relative.pem' is no absolute path"),
        (WEB, {"commitment": Wish.YES}, "--commitment: is only for destinations with --dimse"),
        (PACS, {"verify": Wish.NO}, "--verify: is only for destinations with --stow"),
        (PACS, {"token": "env:X"}, "--token: is only for destinations with --stow"),
        (WEB, {"transfer_syntaxes": ("deflated", "implicit")}, "--transfer-syntaxes: implicit is none of DICOMweb's"),
        (WEB, {"transfer_syntaxes": ("zip",)}, "--transfer-syntaxes: zip: there are explicit, deflated"),
        (PACS, {"associations": 65}, "--max-associations"),
        (PACS, {"bytes_per_s": 10}, "--max-rate"),
        (parse_stow("https://a:b@h"), {"token": "env:X"}, "in the URL or by options, not both"),
    ],
)
def test_what_makes_no_sense_names_the_option(address: object, options: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidDestination) as failed:
        Destination("x", address, DeliveryOptions(**options))  # type: ignore[arg-type]
    assert words in str(failed.value)
    assert not any(secret in str(failed.value) for secret in ("s3cret", "hunter2"))


@pytest.mark.parametrize(
    ("text", "rate"), [("500kB", 500_000), ("2MB", 2_000_000), ("1.5 MB/s", 1_500_000), ("0", 0), ("1G", 10**9)]
)
def test_rates(text: str, rate: int) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["fast", "-1MB", "2MiB", ""])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(InvalidDestination, match="no rate"):
        parse_rate(text)


def test_every_kind_of_failure_has_words_and_one_object_never_stops_a_destination() -> None:
    assert set(WORDS) == set(FailureKind)
    assert failure_words("of a later version") == "of a later version"
    of_one_object = {"status", "partial", "association-aborted", "no-response", "context-not-accepted", "file", ""}
    assert not any(is_of_the_destination(kind) for kind in of_one_object)
    assert is_of_the_destination(FailureKind.NO_CONNECTION)


def test_archives_are_asked_ever_more_rarely_and_not_for_ever() -> None:
    pauses = [ask_pause_s("dimse", asks, 0) for asks in range(1, 10)]
    assert pauses[:3] == [600, 1200, 2400]
    assert pauses[-1] == 6 * 3600
    assert ask_pause_s("stow", 1, 0) == 5
    assert ask_pause_s("dimse", 1, PROOF_GIVE_UP_AFTER_S) is None


@pytest.mark.parametrize(("seconds", "words"), [(8, "8 s"), (300, "5 min"), (93_600, "26 h")])
def test_how_long_it_was_away(seconds: int, words: str) -> None:
    start = datetime(2026, 1, 2, tzinfo=UTC)
    now = datetime.fromtimestamp(start.timestamp() + seconds, UTC)
    assert lasted(Health(down_since=start), now) == words


# ------------------------------------------------------------------------------------------- what senders ask us

KEPT, OTHER_CLASS, GONE = Reference("1.1", "2.1"), Reference("1.1", "2.2"), Reference("1.1", "2.3")
WISH = CommitmentWish("CT1", "NODE", "9.9", (KEPT, OTHER_CLASS, GONE), datetime(2026, 1, 2, tzinfo=UTC))
THERE = {"2.1": "1.1", "2.2": "1.7"}


def test_nothing_counts_as_missing_that_may_only_not_be_filed_yet() -> None:
    assert settle(WISH, THERE, age_s=SETTLED_AFTER_S - 1) is None
    result = settle(WISH, THERE, age_s=SETTLED_AFTER_S)
    assert result is not None
    assert result.kept == (KEPT,)
    assert result.failed == {OTHER_CLASS: 0x0119, GONE: 0x0112}
    assert result_words(result) == "committed to 1, not to 2"


def test_a_sender_is_told_for_three_days() -> None:
    assert [tell_pause_s(tries, 0) for tries in (0, 1, 2, 20)] == [30, 60, 120, 3600]
    assert tell_pause_s(3, 72 * 3600) is None
