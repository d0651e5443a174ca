"""The receiver as a node runs it: it follows its senders' settings, takes announcements and ends associations."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from pynetdicom import AE

from dicomnode import bootstrap
from dicomnode.adapters.db.repositories import SqlState
from dicomnode.adapters.db.tables import ArrivalRow
from dicomnode.adapters.dimse.announcement_scp import MPPS
from dicomnode.config import Settings
from dicomnode.domain.completeness import Policy, Signal, Verdict, Wait, series_verdict
from dicomnode.domain.source import Source
from dicomnode.node import roles
from dicomnode.node.supervisor import forget_ready, read_ready
from dicomnode.stages import sources
from tests.announcements import MPPS_UID, STUDY, begun, ended
from tests.raw_scu import CT, EXPLICIT, IMPLICIT, Closed, RawScu, data_set

MR = "1.2.840.10008.5.1.4.1.1.4"


def until(wanted: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not wanted():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.02)


@dataclass
class Receiver:
    settings: Settings
    state: SqlState
    port: int
    stop: Callable[[], None]

    def contexts(self, calling: str) -> dict[int, str]:
        with RawScu(self.port, {1: (CT, [IMPLICIT, EXPLICIT]), 3: (MR, [IMPLICIT])}, calling=calling) as scu:
            return scu.accepted

    def wait_indexed(self, instances: int) -> None:
        """Once the receiver has got as far as its database."""
        until(lambda: self.state.counts()["instances"]["all"] == instances, "all is indexed")

    def arrivals(self) -> list[tuple[str, str]]:
        """Name and end of each association that brought something."""
        with self.state.engine.connect() as connection:
            query = sa.select(ArrivalRow.association, ArrivalRow.ended_how).order_by(ArrivalRow.id)
            return [(name, how) for name, how in connection.execute(query)]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(sources, "REFRESH_S", 0.05)
    monkeypatch.setattr(bootstrap, "ASSOCIATIONS_GRACE_S", 0.1)
    made = Settings(home=tmp_path / "home", dicom_host="127.0.0.1", dicom_port=0, min_free_bytes=0)
    bootstrap.migrate_database(made)
    return made


@pytest.fixture
def start(settings: Settings) -> Iterator[Callable[..., Receiver]]:
    """Starts receivers of one name, one after the other; of another home while the first one runs."""
    stops: list[Callable[[], None]] = []

    def started(settings: Settings = settings) -> Receiver:
        bootstrap.prepare_home(settings)
        stop = threading.Event()
        thread = threading.Thread(target=roles.receiver, args=(settings, "receiver-1", stop))
        thread.start()

        def end() -> None:
            stop.set()
            thread.join(30)
            assert not thread.is_alive()
            forget_ready(settings.run_folder, "receiver-1")

        stops.append(end)
        until(lambda: read_ready(settings.run_folder, "receiver-1") is not None, "it is ready")
        facts = read_ready(settings.run_folder, "receiver-1") or {}
        return Receiver(settings, state, int(str(facts["dicom_port"])), end)

    with bootstrap.open_state(settings) as state:
        yield started
        for end in stops:
            end()


def test_settings_are_followed_without_a_restart_and_hold_for_their_sender_alone(
    start: Callable[..., Receiver],
) -> None:
    receiver = start()
    assert receiver.contexts("CT1") == {1: IMPLICIT, 3: IMPLICIT}
    receiver.state.put_source(
        Source("CT1", refused_sop_classes=(MR,), refused_transfer_syntaxes=(IMPLICIT,), release=False)
    )
    until(lambda: receiver.contexts("CT1") == {1: EXPLICIT}, "CT1 is kept from sending MR and implicit VR")
    assert receiver.contexts("CT2") == {1: IMPLICIT, 3: IMPLICIT}
    receiver.state.remove_source("CT1")
    until(lambda: receiver.contexts("CT1") == {1: IMPLICIT, 3: IMPLICIT}, "CT1 may send everything again")
    said = "association from CT1 released: nothing kept; its settings keep it from sending MR Image Storage"
    until(lambda: said in [event.message for _, event in receiver.state.events_after(0)], "it is told")


def test_a_modality_announces_over_the_same_port(start: Callable[..., Receiver]) -> None:
    receiver = start()
    ae = AE(ae_title="CT1")
    ae.add_requested_context(MPPS)
    association = ae.associate("127.0.0.1", receiver.port)
    until(lambda: association.send_n_create(begun(), MPPS, MPPS_UID)[0].Status == 0, "the tables are there")
    assert association.send_n_set(ended({"1.2": ["1.3"]}), MPPS, MPPS_UID)[0].Status == 0
    association.release()
    assert [event.kind for event in receiver.state.events(STUDY)] == ["mpps.in-progress", "mpps.completed"]


def test_a_series_is_complete_when_all_that_the_mpps_names_is_here(start: Callable[..., Receiver]) -> None:
    receiver = start()
    ae = AE(ae_title="CT1")
    ae.add_requested_context(MPPS)
    association = ae.associate("127.0.0.1", receiver.port)
    until(lambda: association.send_n_create(begun("1.2.3"), MPPS, MPPS_UID)[0].Status == 0, "the tables are there")
    with RawScu(receiver.port, calling="CT1") as scu:
        assert scu.store(data_set("1.2.3.4.1"), "1.2.3.4.1").status == 0
        changes = ended({"1.2.3.4": ["1.2.3.4.1", "1.2.3.4.2"]})
        assert association.send_n_set(changes, MPPS, MPPS_UID)[0].Status == 0
        assert isinstance(decision(receiver, 1), Wait)
        assert scu.store(data_set("1.2.3.4.2"), "1.2.3.4.2").status == 0
        complete = decision(receiver, 2)
    association.release()
    assert isinstance(complete, Verdict)
    assert complete.signal is Signal.ANNOUNCED


def decision(receiver: Receiver, instances: int) -> Verdict | Wait:
    """With so many instances, while their association is open and long before it is quiet."""
    receiver.wait_indexed(instances)
    (signs,) = receiver.state.receiving_series()
    return series_verdict(signs, Policy(settle_s=0.0, quiet_period_s=60.0))


def test_associations_that_are_cut_off_at_the_end_are_known_to_have_ended(start: Callable[..., Receiver]) -> None:
    receiver = start()
    with RawScu(receiver.port) as scu:
        assert scu.store(data_set("1.2.1"), "1.2.1").status == 0
    scu = RawScu(receiver.port)
    assert scu.store(data_set("1.2.2"), "1.2.2").status == 0
    receiver.wait_indexed(2)
    receiver.stop()
    with pytest.raises(Closed):
        scu.read_pdu()
    scu.peer.close()
    arrivals = receiver.arrivals()
    assert [how for _, how in arrivals] == ["released", "aborted"]
    names = [re.fullmatch(r"(\S+\.receiver-1)/(\d+-\d+)/(\d+)", name) for name, _ in arrivals]
    assert [match and match[3] for match in names] == ["1", "2"]


def test_what_an_earlier_process_left_open_is_lost(start: Callable[..., Receiver]) -> None:
    first = start()
    with RawScu(first.port) as scu:
        assert scu.store(data_set("1.2.1"), "1.2.1").status == 0
    first.wait_indexed(1)
    first.stop()
    with first.state.engine.begin() as connection:  # as if it had been killed
        connection.execute(sa.update(ArrivalRow).values(ended_at=None, ended_how=""))
    start()
    until(lambda: [how for _, how in first.arrivals()] == ["lost"], "the next process says so")


def test_what_the_same_receiver_of_another_home_has_open_is_not_lost(
    start: Callable[..., Receiver], settings: Settings, tmp_path: Path
) -> None:
    """As of two containers that are called the same, on one database."""
    first = start()
    with RawScu(first.port) as scu:
        assert scu.store(data_set("1.2.1"), "1.2.1").status == 0
        first.wait_indexed(1)
        second = start(replace(settings, home=tmp_path / "other", database_url=settings.sqlalchemy_url))
        with RawScu(second.port) as other:
            assert other.store(data_set("1.2.2"), "1.2.2").status == 0
            first.wait_indexed(2)  # what an earlier process left open was looked at before
            assert [how for _, how in first.arrivals()] == ["", ""]
    until(lambda: [how for _, how in first.arrivals()] == ["released"] * 2, "both have ended")
    homes = {name.partition(".receiver-1/")[0] for name, _ in first.arrivals()}
    assert len(homes) == 2
