"""Fixtures of the tests of whole nodes."""

from __future__ import annotations

import pytest

from tests.server_fixtures import emptied, require_dcmtk
from tests.servers import Orthanc


@pytest.fixture(scope="module")
def pacs(orthanc_of_session: Orthanc) -> Orthanc:
    """The archive of a file's node, empty when the file begins; dcmtk's storescu sends to the node."""
    require_dcmtk("storescu")
    return emptied(orthanc_of_session)
