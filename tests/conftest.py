"""Fixtures that every test may use."""

from __future__ import annotations

from tests.server_fixtures import dcmqrscp, orthanc, orthanc_of_session, store_scp

__all__ = ["dcmqrscp", "orthanc", "orthanc_of_session", "store_scp"]
