"""The indexer: what lies in the spool gets its place and its row, whatever the database does."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode.adapters.system_clock import SystemClock
from dicomnode.encoding.part10 import file_meta_information
from dicomnode.ports import Spooled
from dicomnode.stages import index
from dicomnode.stages.index import Arrival, AssociationEnd, Indexer, backoff_s, read_header
from tests.adapters.fake_instance_store import FakeInstanceStore
from tests.raw_scu import CT, IMPLICIT, data_set, element
from tests.recorder import Recorder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "BACKOFF_FIRST_S", 0.01)
    monkeypatch.setattr(index, "BACKOFF_MOST_S", 0.02)
    monkeypatch.setattr(index, "GATHER_S", 0.02)


@pytest.fixture
def store(tmp_path: Path) -> FakeInstanceStore:
    return FakeInstanceStore(tmp_path)


def spool(store: FakeInstanceStore, instance: str, tail: bytes = b"") -> Spooled:
    meta = file_meta_information(
        sop_class_uid=CT,
        sop_instance_uid=instance,
        transfer_syntax_uid=IMPLICIT,
        calling_ae_title="SENDER",
        called_ae_title="NODE",
    )
    content = data_set(instance, tail=tail)
    return store.spool([meta, content], calling_ae_title="SENDER", called_ae_title="NODE")


def run(store: FakeInstanceStore, state: Recorder, items: list[Arrival | AssociationEnd]) -> None:
    indexer = Indexer(store, state, SystemClock())  # type: ignore[arg-type]
    for item in items:
        indexer.put(item)
    indexer.start()
    assert indexer.flush(10)
    indexer.stop()


def end(how: str = "released", refusals: dict[str, int] | None = None) -> AssociationEnd:
    return AssociationEnd("a", "SENDER", "NODE", how, refusals or {})


def test_leftovers_of_a_process_that_died_are_indexed_at_the_start(store: FakeInstanceStore) -> None:
    spooled = [spool(store, f"1.2.{n}") for n in range(3)]
    run(store, state := Recorder(), [])
    assert [row.sop_instance_uid for row in state.rows.values()] == ["1.2.0", "1.2.1", "1.2.2"]
    row = state.rows["1.2.1"]
    assert (row.calling_ae_title, row.called_ae_title, row.received_at) == ("SENDER", "NODE", spooled[1].received_at)
    assert store.path(row.path).exists()
    assert list(store.spooled()) == []


def test_the_spool_is_left_only_after_the_place_and_the_row(store: FakeInstanceStore) -> None:
    class Watched(Recorder):
        def record_instances(self, instances):  # type: ignore[no-untyped-def]
            store.calls.append("record")
            return super().record_instances(instances)

    spool(store, "1.2.3")
    run(store, Watched(), [])
    assert store.calls == ["spool 000000", "file 000000", "record", "discard 000000"]


def test_a_database_that_is_down_costs_nothing(store: FakeInstanceStore) -> None:
    state = Recorder()
    state.down = True
    indexer = Indexer(store, state, SystemClock())  # type: ignore[arg-type]
    indexer.start()
    for n in range(5):
        indexer.put(Arrival(spool(store, f"1.2.{n}"), association="a"))
    indexer.put(end())
    assert state.tried.wait(10)
    assert not indexer.flush(0.1)
    assert len(list(store.spooled())) == 5
    state.down = False
    assert indexer.flush(10)
    indexer.stop()
    assert len(state.rows) == 5
    assert state.messages("association.released") == ["association from SENDER released: 5 instances"]


def test_stopping_does_not_wait_for_a_database_that_is_down(store: FakeInstanceStore) -> None:
    state = Recorder()
    state.down = True
    spool(store, "1.2.3")
    indexer = Indexer(store, state, SystemClock())  # type: ignore[arg-type]
    indexer.start()
    assert state.tried.wait(10)
    indexer.stop()
    assert [s.name for s in store.spooled()] == ["000000"]


def test_one_row_that_is_never_taken_does_not_hold_up_the_others(store: FakeInstanceStore) -> None:
    state = Recorder()
    state.poison = {"1.2.1"}
    indexer = Indexer(store, state, SystemClock())  # type: ignore[arg-type]
    for n in range(6):
        indexer.put(Arrival(spool(store, f"1.2.{n}")))
    indexer.start()
    while len(state.rows) < 5:
        assert not indexer.flush(0.02)
    indexer.stop()
    assert sorted(state.rows) == ["1.2.0", "1.2.2", "1.2.3", "1.2.4", "1.2.5"]
    assert len(list(store.spooled())) == 1


def test_what_the_disk_has_spoilt_stays_in_the_spool_and_the_rest_goes_on(store: FakeInstanceStore) -> None:
    bad, _ = spool(store, "1.2.1"), spool(store, "1.2.2")
    bad.path.write_bytes(b"not what it was" * 20)
    run(store, state := Recorder(), [])
    assert list(state.rows) == ["1.2.2"]
    assert [s.name for s in store.spooled()] == [bad.name]


def test_what_is_indexed_twice_is_indexed_once(store: FakeInstanceStore) -> None:
    spooled = spool(store, "1.2.1")
    run(store, state := Recorder(), [Arrival(spooled, association="a"), end(), Arrival(spooled)])
    assert len(state.rows) == 1


def test_a_conflict_and_a_result_that_came_back_are_told_once_a_series(store: FakeInstanceStore) -> None:
    state = Recorder()
    state.own = {"1.2.9"}
    spooled = [
        spool(store, "1.2.1"),
        *(spool(store, "1.2.1", tail) for tail in (b"", b"a", b"b")),
        spool(store, "1.2.9"),
    ]
    run(store, state, [*(Arrival(s, association="a") for s in spooled), end()])
    (conflict,) = [event for event in state.events if event.kind == "instance.conflict"]
    assert conflict.message.startswith("2 instances from SENDER came under a UID that was here already")
    assert (conflict.study_instance_uid, conflict.series_instance_uid) == ("1.2.3", "1.2.3.4")
    assert conflict.detail == {"sop_instance_uids": ["1.2.1", "1.2.1"]}
    assert state.messages("instance.own-result")[0].startswith("1 instance from SENDER came back")
    (line,) = state.messages("association.released")
    assert "5 instances (1 here already, 2 with other content than before, 1 this node's own)" in line


def test_an_association_that_brought_nothing_is_told_only_when_something_went_wrong(store: FakeInstanceStore) -> None:
    state = Recorder()
    run(store, state, [end(), end("aborted"), end("released", {"Study Instance UID is missing": 2})])
    assert [event.message for event in state.events] == [
        "association from SENDER aborted: nothing kept",
        "association from SENDER released: nothing kept; 2 instances of it refused: Study Instance UID is missing",
    ]
    assert state.events[1].detail["refused"] == {"Study Instance UID is missing": 2}


def test_batches_are_gathered(store: FakeInstanceStore) -> None:
    state = Recorder()
    run(store, state, [*(Arrival(spool(store, f"1.2.{n}"), association="a") for n in range(100)), end()])
    assert state.batches == [64, 36]


def test_the_wait_after_failures_doubles_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert [backoff_s(n) for n in (1, 2, 3, 99)] == [0.25, 0.5, 1.0, 10.0]


@pytest.mark.parametrize(
    ("charset", "encoded", "text"),
    [
        (b"ISO_IR 100", "Thorax für Müller".encode("latin1"), "Thorax für Müller"),
        (b"ISO_IR 192", "胸部".encode(), "胸部"),
        (b"\\ISO 2022 IR 87", b"\x1b$B6;It\x1b(B", "胸部"),
        (b"GB18030", "胸部".encode("gb18030"), "胸部"),
        (b"", b"plain", "plain"),
        (b"ISO_IR 192", b"\xff\xfe broken", "\ufffd\ufffd broken"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_text_is_decoded_by_its_character_set(charset: bytes, encoded: bytes, text: str) -> None:
    padded = encoded + b" " * (len(encoded) % 2)
    body = data_set().replace(element(8, 0x60, b"CT"), element(8, 0x60, b"CT") + element(8, 0x103E, padded))
    header = read_header([element(8, 5, charset + b" " * (len(charset) % 2)) + body], IMPLICIT)
    assert header.series_description == text
    assert header.modality == "CT"


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_an_unknown_character_set_or_a_strange_value_spoils_nothing() -> None:
    body = element(8, 5, b"KLINGON ") + data_set() + element(0x20, 0x11, b"9" * 20) + element(0x20, 0x13, b"x\0")
    header = read_header([body], IMPLICIT)
    assert (header.study_instance_uid, header.series_number, header.instance_number) == ("1.2.3", None, None)
    long = data_set().replace(element(8, 0x60, b"CT"), element(8, 0x60, b"C\0\0\n" + b"y" * 200))
    assert read_header([long], IMPLICIT).modality == "C " + "y" * 62
