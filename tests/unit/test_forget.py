"""Forgetting with the real store: what other processes spooled, and files that have just got their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode.adapters.instance_store import FolderInstanceStore
from dicomnode.errors import IllegalTransition
from dicomnode.stages.forget import forget
from tests.adapters.fake_state import FakeState
from tests.adapters.state_material import SERIES, STUDY, instance, routed
from tests.contract.test_instance_store import spool_of


@pytest.fixture
def store(tmp_path: Path) -> FolderInstanceStore:
    return FolderInstanceStore(tmp_path / "store")


def received(state: FakeState, store: FolderInstanceStore, number: int, *, indexed: bool = True) -> None:
    spooled = spool_of(store, STUDY)
    one = instance(number)
    stored = store.file(spooled, study=STUDY, series=SERIES, instance=one.sop_instance_uid, sha256=one.sha256)
    store.discard(spooled)
    if indexed:
        state.record_instances([instance(number, path=stored.path)])


def test_spooled_images_of_a_live_receiver_go_too(store: FolderInstanceStore) -> None:
    state = FakeState()
    received(state, store, 1)
    waiting, other = spool_of(store, STUDY), spool_of(store, "7.7")
    removed = forget(state, FolderInstanceStore(store.path("")), "A-23")
    assert (removed.files, removed.spooled, removed.forgotten.instances) == (1, 1, 1)
    assert not waiting.path.exists()
    assert other.path.exists()


def test_a_file_on_its_way_into_the_database_stays_until_it_has_settled(store: FolderInstanceStore) -> None:
    state = FakeState()
    received(state, store, 1)
    received(state, store, 2, indexed=False)
    assert forget(state, store, STUDY).files == 1
    assert len(store.files_of(STUDY)) == 1
    assert forget(state, store, STUDY, settled_s=0.0).files == 1
    assert store.files_of(STUDY) == []


def test_nothing_goes_when_the_database_refuses(store: FolderInstanceStore) -> None:
    state = FakeState()
    received(state, store, 1)
    spool_of(store, STUDY)
    routed(state)
    with pytest.raises(IllegalTransition):
        forget(state, store, STUDY)
    assert len(store.files_of(STUDY)) == 1
    assert len(list(store.spooled())) == 1
