"""Starting a node: what must be refused before anything runs."""

import socket
from pathlib import Path

import pytest

from dicomnode.config import Settings
from dicomnode.errors import InvalidSetting, StateError
from dicomnode.node import up


def test_a_port_that_another_node_shares_is_not_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """SO_REUSEPORT alone would let two nodes of two homes split one sender's images between them."""
    monkeypatch.setattr(up, "PORT_PATIENCE_S", 0.0)
    monkeypatch.setattr(up, "_PORT_POLL_S", 0.0)
    first = Settings(home=tmp_path / "first", dicom_host="127.0.0.1", dicom_port=0)
    with up._reserved_port(first) as port:
        second = Settings(home=tmp_path / "second", dicom_host="127.0.0.1", dicom_port=port)
        with pytest.raises(InvalidSetting, match="cannot bind"), up._reserved_port(second):
            pass
        # the node's own receivers do share it
        with socket.socket() as receiver:
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            receiver.bind(("127.0.0.1", port))
    with up._reserved_port(second) as again:
        assert again == port


def test_one_node_a_home(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    settings.run_folder.mkdir()
    with up._only_one(settings), pytest.raises(StateError, match="already running"), up._only_one(settings):
        pass
    with up._only_one(settings):
        pass
