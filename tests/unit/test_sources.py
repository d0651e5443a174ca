"""Settings of senders: what is valid, what they may send, and what is known of them while the database is away."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from dicomnode.domain.destination import DimseAddress, StowAddress
from dicomnode.domain.source import Source, as_document, parse_source, query_address
from dicomnode.encoding.uid_names import SOP_CLASS, TRANSFER_SYNTAX, name_of, uid_of
from dicomnode.errors import InvalidSource
from dicomnode.stages.sources import KnownSources
from tests.adapters.fake_state import FakeState

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
JPEG, EXPLICIT = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.1"

FULL = Source(
    "CT1",
    query=DimseAddress("PACS", "192.0.2.1", 104),
    quiet_period_s=30.0,
    release=False,
    commitment=False,
    allowed_sop_classes=(CT,),
    refused_sop_classes=(MR,),
    allowed_transfer_syntaxes=(EXPLICIT,),
    refused_transfer_syntaxes=(JPEG,),
)


@pytest.mark.parametrize("source", [FULL, Source("CT 1"), Source("A", query=StowAddress("http://u:p@h/dicom-web"))])
def test_documents_are_read_as_they_were_written(source: Source) -> None:
    assert parse_source(json.loads(json.dumps(as_document(source)))) == source


def test_what_is_not_set_is_not_in_the_document() -> None:
    assert as_document(Source("CT1")) == {"ae_title": "CT1"}
    assert parse_source({"ae_title": " CT1 "}) == Source("CT1")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ae_title": ""}, "ae_title: '' is not text"),
        ({"ae_title": "A" * 17}, "ae_title: .* is no AE title"),
        ({"ae_title": 3}, "ae_title: 3 is not text"),
        ({"quiet_period_s": -1}, "quiet_period_s: -1 is not 0 to"),
        ({"quiet_period_s": float("nan")}, "quiet_period_s"),
        ({"quiet_period_s": "5"}, "quiet_period_s: '5' is not a number"),
        ({"release": "no"}, "release: 'no' is not true or false"),
        ({"commitment": 1}, "commitment: 1 is not true or false"),
        ({"commitment": False, "report_dimse": "A@h:1"}, "commitment: who may not ask is not told"),
        ({"allowed_sop_classes": "1.2"}, "allowed_sop_classes: '1.2' is not a list"),
        ({"allowed_sop_classes": ["CTImageStorage"]}, r"allowed_sop_classes\[0\]: 'CTImageStorage' is no UID"),
        (
            {"allowed_sop_classes": [CT], "refused_sop_classes": [MR, CT]},
            f"refused_sop_classes: both allowed and refused: {CT}",
        ),
        ({"query_dimse": "A@h:1", "query_url": "http://h"}, "give one of"),
        ({"query_dimse": "h:104"}, "--query-dimse: 'h:104' is not AET@HOST:PORT"),
        ({"query_url": "h"}, "--query-url: 'h' is no http"),
        ({"quite_period_s": 3}, "unknown: quite_period_s"),
    ],
)
def test_errors_name_the_path(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSource, match=message) as caught:
        parse_source({"ae_title": "CT1", **changes})
    assert caught.value.exit_code == 2


def test_a_source_without_an_address_has_none() -> None:
    assert query_address("", "") is None


@pytest.mark.parametrize(
    ("allowed", "refused", "sent", "fine"),
    [
        ((), (), CT, True),
        ((CT,), (), CT, True),
        ((CT,), (), MR, False),
        ((), (MR,), CT, True),
        ((), (MR,), MR, False),
        ((CT,), (MR,), "1.2.3", False),
    ],
)
def test_what_may_be_sent(allowed: tuple[str, ...], refused: tuple[str, ...], sent: str, fine: bool) -> None:
    source = Source("CT1", allowed_sop_classes=allowed, refused_sop_classes=refused)
    assert source.may_send(sent) is fine
    source = Source("CT1", allowed_transfer_syntaxes=allowed, refused_transfer_syntaxes=refused)
    assert source.may_send_in(sent) is fine


@pytest.mark.parametrize(
    ("text", "kind", "uid"),
    [
        ("CTImageStorage", SOP_CLASS, CT),
        ("CT Image Storage", SOP_CLASS, CT),
        (" ct image storage ", SOP_CLASS, CT),
        (CT, SOP_CLASS, CT),
        ("1.3.46.670589.11.0.0.12.1", SOP_CLASS, "1.3.46.670589.11.0.0.12.1"),
        ("Explicit VR Little Endian", TRANSFER_SYNTAX, EXPLICIT),
        ("JPEGBaseline8Bit", TRANSFER_SYNTAX, JPEG),
        ("Ultrasound Image Storage", SOP_CLASS, "1.2.840.10008.5.1.4.1.1.6.1"),
    ],
)
def test_uids_by_name(text: str, kind: str, uid: str) -> None:
    assert uid_of(text, kind) == uid


def test_names_that_are_none_come_with_what_is_near() -> None:
    with pytest.raises(ValueError, match="perhaps CTImageStorage"):
        uid_of("CTImageStorag", SOP_CLASS)
    with pytest.raises(ValueError, match="no SOP Class but Explicit VR Little Endian"):
        uid_of(EXPLICIT, SOP_CLASS)
    with pytest.raises(ValueError, match="a UID, or a keyword"):
        uid_of("?", TRANSFER_SYNTAX)


def test_names_of_uids() -> None:
    assert [name_of(uid) for uid in (CT, "1.2.3")] == ["CT Image Storage", "1.2.3"]


# ----------------------------------------------------------------------------------------------- what is known


def test_before_anything_is_known_everybody_may_send_everything() -> None:
    source = KnownSources(FakeState()).of("CT1 ")
    assert source == Source("CT1")
    assert source.may_send(CT)


def test_settings_are_followed_and_kept_while_the_database_is_away() -> None:
    state = FakeState()
    known = KnownSources(state)
    state.put_source(FULL)
    known.refresh()
    assert known.of(" CT1") == FULL
    state.sources = lambda: (_ for _ in ()).throw(ConnectionError("away"))  # type: ignore[method-assign]
    with pytest.raises(ConnectionError):
        known.refresh()
    assert known.of("CT1") == FULL
    assert known.of("CT2") == Source("CT2")
    del state.sources
    state.remove_source("CT1")
    known.refresh()
    assert known.of("CT1") == Source("CT1")


def test_settings_of_a_later_version_do_not_end_the_receiver() -> None:
    state, stop = FakeState(), threading.Event()
    known = KnownSources(state)

    def written_by_a_later_version() -> list[Source]:
        stop.set()
        return [parse_source({"ae_title": "CT1", "new": 1})]

    state.sources = written_by_a_later_version  # type: ignore[method-assign]
    known.run(stop)
    assert known.of("CT1") == Source("CT1")
