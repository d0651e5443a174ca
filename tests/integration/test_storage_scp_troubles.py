"""The listener and peers that misbehave, that are many, or that a kill -9 cuts off."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dicomnode.adapters.dimse import reactor
from dicomnode.adapters.dimse.storage_scp import StorageSCP
from dicomnode.adapters.instance_store import FolderInstanceStore
from dicomnode.ports import Spooled
from tests.integration.test_storage_scp import Node, node, running
from tests.raw_scu import CT, Closed, RawScu, data_set

__all__ = ["node"]

# ------------------------------------------------------------------------------------------- what peers do wrong


def half_an_instance(scu: RawScu) -> None:
    scu.send_fragment(1, 0x03, scu.command(CT, "1.2.3.4.5"))
    scu.send_fragment(1, 0x00, data_set()[:40])


def test_an_abort_in_mid_transfer_keeps_nothing_and_disturbs_nobody(node: Node) -> None:
    with RawScu(node.scp.port) as other:
        scu = RawScu(node.scp.port, calling="CT1")
        half_an_instance(scu)
        scu.abort()
        scu = RawScu(node.scp.port, calling="CT2")
        half_an_instance(scu)
        scu.peer.close()  # no A-ABORT: a cable that was pulled
        assert other.store(data_set()).status == 0
    assert node.kept() == [data_set()]
    assert sorted(node.state.messages("association.aborted")) == [
        "association from CT1 aborted: nothing kept",
        "association from CT2 aborted: nothing kept",
    ]


@pytest.mark.parametrize(
    "rubbish",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x04\0\0\0\0\x04\0\0\0\x02",  # a data value longer than its PDU
        b"\x04\0\0\0\0\x06\0\0\0\0\x01\x03",  # an empty one
        b"\x04\0\0\0\0\x0e\0\0\0\x0a\x01\x03" + b"\xff" * 8,  # no command set
        b"\x04\0\xff\xff\xff\xff" + b"\0" * 100,  # 4 GB
        b"\x01\0\0\0\0\x04\0\0\0\0",  # A-ASSOCIATE-RQ again, and broken
        b"\x09\0\0\0\0\0",  # no such PDU
        b"\x06\0\0\0\0\x04\0\0\0\0",  # A-RELEASE-RP out of the blue
    ],
)
def test_rubbish_on_an_association_ends_that_association_only(node: Node, rubbish: bytes) -> None:
    scu = RawScu(node.scp.port)
    scu.peer.sendall(rubbish)
    with pytest.raises(Closed):
        scu.read_until_closed()
    scu.peer.close()
    with RawScu(node.scp.port) as scu:
        assert scu.store(data_set()).status == 0


def test_rubbish_instead_of_an_association_is_survived(node: Node) -> None:
    for rubbish in (b"", b"\x01", b"\x16\x03\x01\x02\x00" * 50, b"\x01\0\0\0\0\x08" + b"\xff" * 8):
        with socket.create_connection(("127.0.0.1", node.scp.port)) as peer:
            peer.sendall(rubbish)
    with RawScu(node.scp.port) as scu:
        assert scu.store(data_set()).status == 0


def test_a_peer_that_falls_silent_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reactor, "TICK_S", 0.05)
    with running(tmp_path, idle_timeout_s=0.2) as node:
        scu = RawScu(node.scp.port)
        half_an_instance(scu)
        with pytest.raises(Closed):
            scu.read_pdu()
        scu.peer.close()


# ------------------------------------------------------------------------------------- several at once, and ends


def test_four_senders_at_once(node: Node) -> None:
    def send(sender: int) -> list[int]:
        with RawScu(node.scp.port, calling=f"CT{sender}") as scu:
            return [scu.store(large(f"1.5.{sender}.{n}", n), f"1.5.{sender}.{n}").status for n in range(25)]

    def large(instance: str, n: int) -> bytes:
        return data_set(instance, tail=b"\xe0\x7f\x10\x00\xa0\x86\1\0" + bytes([n]) * 100_000)

    with ThreadPoolExecutor(4) as pool:
        statuses = [status for answers in pool.map(send, range(4)) for status in answers]
    assert statuses == [0] * 100
    assert len(set(node.kept())) == 100
    assert len(node.state.messages("association.released")) == 4


def test_two_listeners_share_a_port_and_one_takes_over_when_the_other_ends(tmp_path: Path) -> None:
    with running(tmp_path / "a", reuse_port=True) as first:
        with running(tmp_path / "b", reuse_port=True, port=first.scp.port) as second:
            for n in range(20):
                with RawScu(first.scp.port) as scu:
                    assert scu.store(data_set(f"1.6.{n}"), f"1.6.{n}").status == 0
            assert len(first.kept()) + len(second.kept()) == 20
        before = len(first.kept())
        with RawScu(first.scp.port) as scu:
            assert scu.store(data_set("1.6.99"), "1.6.99").status == 0
        assert len(first.kept()) == before + 1


def test_a_port_that_is_taken_is_an_error(node: Node) -> None:
    with pytest.raises(OSError, match="in use"):
        StorageSCP(node.stage, host="127.0.0.1", port=node.scp.port, ae_title="NODE").start()


def test_stopping_lets_the_running_association_end(tmp_path: Path) -> None:
    with running(tmp_path) as node:
        scu = RawScu(node.scp.port)
        assert scu.store(data_set("1.2.1"), "1.2.1").status == 0
        stopping = threading.Thread(target=node.scp.stop)
        stopping.start()
        assert scu.store(data_set("1.2.2"), "1.2.2").status == 0
        scu.release()
        scu.peer.close()
        stopping.join(20)
        assert not stopping.is_alive()
        with pytest.raises(OSError, match="refused"):
            RawScu(node.scp.port)
        assert len(node.kept()) == 2


def test_stopping_cuts_off_an_association_that_does_not_end(node: Node) -> None:
    scu = RawScu(node.scp.port)
    node.scp.stop(timeout_s=0.1)
    with pytest.raises(Closed):
        scu.read_pdu()
    scu.peer.close()


# ----------------------------------------------------------------------------------------------------- kill -9

_VICTIM = """
import sys
from pathlib import Path
from dicomnode.adapters.dimse.storage_scp import StorageSCP
from dicomnode.adapters.instance_store import FolderInstanceStore
from dicomnode.adapters.system_clock import SystemClock
from dicomnode.stages.receive import ReceiveStage
stage = ReceiveStage(FolderInstanceStore(Path(sys.argv[1])), None, SystemClock())  # its indexer never starts
scp = StorageSCP(stage, host="127.0.0.1", port=0, ae_title="NODE")
scp.start()
print(scp.port, flush=True)
"""


def test_what_was_acknowledged_outlives_kill_9_between_spool_and_index(tmp_path: Path) -> None:
    victim = subprocess.Popen([sys.executable, "-c", _VICTIM, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert victim.stdout is not None
        port = int(victim.stdout.readline())
        with RawScu(port, calling="CT1") as scu:
            for n in range(3):
                assert scu.store(data_set(f"1.7.{n}"), f"1.7.{n}").status == 0
        living = FolderInstanceStore(tmp_path)
        assert list(living.spooled()) == []  # the owner lives: hands off
        living.close()
        scu = RawScu(port)
        half_an_instance(scu)
    finally:
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        assert victim.stdout is not None
        victim.stdout.close()
    scu.peer.close()
    with running(tmp_path) as node:
        assert node.kept() == [data_set(f"1.7.{n}") for n in range(3)]
        assert {row.calling_ae_title for row in node.state.rows.values()} == {"CT1"}
        left: list[Spooled] = list(node.store.spooled())
        assert left == []
    assert list((tmp_path / "spool").iterdir()) == []
