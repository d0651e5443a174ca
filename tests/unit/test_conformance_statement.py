"""The conformance statement says what the code does, and docs/ holds that of a node as it is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from typer.testing import CliRunner

from dicomnode.adapters.dimse.offered import accepted, proposed_for_storage
from dicomnode.cli.context import Context
from dicomnode.cli.root import app
from dicomnode.config import Settings
from dicomnode.domain.destination import Destination, DimseAddress
from dicomnode.domain.profile import FORMS, OWN_KINDS
from dicomnode.domain.source import Source
from dicomnode.encoding.kinds import SOP_CLASSES
from dicomnode.node.conformance import Configuration, conformance_statement
from dicomnode.node.statement import Section, Table, markdown
from tests.made_series import classic
from tests.unit.test_examine import files_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "conformance-statement.md"
CT, RAW = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.66"
JPEG, EXPLICIT, DEFLATED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"


def test_the_one_in_the_documentation_is_true() -> None:
    text = markdown(conformance_statement(Configuration(Settings())))
    assert DOCUMENT.read_text() == text, "dicomnode --home /nowhere conformance > docs/conformance-statement.md"


def text_of(**how: Any) -> str:
    settings = how.pop("settings", {})
    return markdown(conformance_statement(Configuration(Settings(**settings), **how)))


def test_it_is_of_this_configuration() -> None:
    text = text_of(settings={"ae_title": "AINODE", "dicom_port": 104, "check_called_ae_title": True, "receivers": 3})
    assert "One application entity, AINODE" in text
    assert "| called AE title | AINODE only |" in text
    assert "| 0.0.0.0 | 104 |" in text
    assert "| associations at once | 64 in each of 3 processes |" in text
    assert "| calling AE titles | CT1, MR |" in text_of(settings={"allowed_calling_ae_titles": ("CT1", "MR")})
    pacs = Destination("pacs", DimseAddress("PACS", "192.0.2.7", 104))
    assert "| pacs | PACS@192.0.2.7:104 | standard | Deflated" in text_of(destinations=[pacs])


def test_a_source_that_may_send_less_is_named() -> None:
    assert "Of GATEWAY it accepts" not in text_of(sources=[Source("GATEWAY")])
    source = Source("GATEWAY", refused_sop_classes=frozenset({RAW}), refused_transfer_syntaxes=frozenset({JPEG}))
    words = "Of GATEWAY it accepts 1 SOP class fewer and fewer transfer syntaxes"
    assert words in text_of(sources=[source])


def test_what_the_scp_takes_is_asked_of_the_scp() -> None:
    takes = {one.sop_class_uid: one for one in accepted(Source("ANY"))}
    assert {JPEG, EXPLICIT, DEFLATED} <= set(takes[CT].transfer_syntax_uids)
    assert (takes[CT].scu, takes[CT].scp) == (False, True)
    commitment = takes["1.2.840.10008.1.20.1"]
    assert (commitment.scu, commitment.scp) == (True, True)
    assert "1.2.840.10008.5.1.4.1.2.2.1" not in takes, "the node answers no queries"
    fewer = {one.sop_class_uid for one in accepted(Source("ANY"), announcements=False, commitments=False)}
    assert takes.keys() - fewer == {
        "1.2.840.10008.1.20.1",
        "1.2.840.10008.3.1.2.3.3",
        "1.2.840.10008.5.1.4.33",
    }


def test_what_the_scu_proposes_is_asked_of_the_scu() -> None:
    (plain,) = proposed_for_storage([CT], ())
    (deflated,) = proposed_for_storage([CT], (DEFLATED,))
    assert plain.transfer_syntax_uids == (EXPLICIT, "1.2.840.10008.1.2")
    assert deflated.transfer_syntax_uids == (DEFLATED, *plain.transfer_syntax_uids)


def test_every_kind_of_result_is_of_the_sop_class_that_is_claimed(tmp_path: Path) -> None:
    assert set(SOP_CLASSES) == {*OWN_KINDS, *FORMS}
    for kind, file in files_of(classic(), tmp_path).items():
        dataset = dcmread(file)
        assert dataset.SOPClassUID == SOP_CLASSES[kind], kind
        assert [element.tag for element in dataset.iterall() if element.tag.is_private] == [], kind


def test_the_command_prints_both_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DICOMNODE_HOME", str(tmp_path / "no node"))
    ran = CliRunner().invoke(app, ["conformance", "--ae-title", "AINODE"], obj=Context())
    assert ran.exit_code == 0
    assert ran.output == text_of(settings={"ae_title": "AINODE"})
    document = json.loads(CliRunner().invoke(app, ["conformance", "--json"], obj=Context()).output)
    assert [section["title"] for section in document["sections"]][2:4] == ["Networking", "DICOMweb services"]
    assert not (tmp_path / "no node").exists()


def test_headings_are_numbered_and_cells_are_kept_apart() -> None:
    inner = Section("Inner", ("Words.",), (Table(("a", "b"), (("x|y", "z"),)),))
    text = markdown(Section("Title", (), (), (Section("Outer", (), (), (inner,)),)))
    assert text == "# Title\n\n## 1 Outer\n\n### 1.1 Inner\n\nWords.\n\n| a | b |\n| --- | --- |\n| x\\|y | z |\n"
