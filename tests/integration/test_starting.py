"""Starting a node: what must be refused before anything runs."""

import socket
import threading
from pathlib import Path

import pytest

from dicomnode import bootstrap
from dicomnode.config import Settings
from dicomnode.errors import InvalidSetting, StateError
from dicomnode.node import roles, up


def test_a_port_that_another_node_shares_is_not_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """SO_REUSEPORT alone would let two nodes of two homes split one sender's images between them."""
    monkeypatch.setattr(up, "PORT_PATIENCE_S", 0.0)
    monkeypatch.setattr(up, "_PORT_POLL_S", 0.0)
    first = Settings(home=tmp_path / "first", dicom_host="127.0.0.1", dicom_port=0)
    with up._reserved_port(first) as port:
        second = Settings(home=tmp_path / "second", dicom_host="127.0.0.1", dicom_port=port)
        with (
            pytest.raises(
                InvalidSetting, match=rf"cannot listen on 127\.0\.0\.1:{port}: another program listens there"
            ),
            up._reserved_port(second),
        ):
            pass
        # the node's own receivers do share it
        with socket.socket() as receiver:
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            receiver.bind(("127.0.0.1", port))
    with up._reserved_port(second) as again:
        assert again == port


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("192.0.2.7", "cannot listen on 192.0.2.7:0: that is no IPv4 address of this host"),
        ("no-such-host.invalid", "cannot listen on no-such-host.invalid:0: that is no IPv4 address of this host"),
    ],
)
def test_an_address_of_another_host_is_told_by_the_node_and_by_a_receiver_alone(
    tmp_path: Path, host: str, words: str
) -> None:
    settings = Settings(home=tmp_path, dicom_host=host, dicom_port=0)
    with pytest.raises(InvalidSetting, match=words), up._reserved_port(settings):
        pass
    bootstrap.prepare_home(settings)
    with pytest.raises(InvalidSetting, match=words):
        roles.receiver(settings, "receiver-1", threading.Event())


def test_one_node_a_home(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    settings.run_folder.mkdir()
    with up._only_one(settings), pytest.raises(StateError, match="already running"), up._only_one(settings):
        pass
    with up._only_one(settings):
        pass
