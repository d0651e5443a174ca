"""The ten rules of sample_data/rules/hospital on real studies: each series goes where a radiologist would have it go.

tests/golden/routing.json says of each series, by its first file, what the rules come to when it is complete (`alone`)
and when its study is (`study`); rules that do not match are left out. A remark explains what may surprise; it stays
when the table is written anew after a change of the rules, which this does:

    python -m tests.unit.test_routing_real

Look at every line that changed, and say in a remark why it is right.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from dicomnode.cli.rule_files import read_rules
from dicomnode.domain.completeness import Signal, Verdict
from dicomnode.domain.destination import Destination, parse_dimse
from dicomnode.domain.routing import Asked, OutcomeKind, SeriesOutcomes, decide_series, decide_study
from dicomnode.domain.rules import Rule, rule_document
from dicomnode.domain.study import Evidence, ReceivedInstance, Series
from dicomnode.errors import CannotDecode
from dicomnode.imaging.attributes import keyword_vrs
from dicomnode.imaging.series_files import series_in
from dicomnode.stages.evidence import first_look, unreadable, with_all_facts
from dicomnode.stages.route import RouteStage
from tests.adapters.fake_instance_store import FakeInstanceStore
from tests.adapters.fake_state import FakeClock, FakeState
from tests.adapters.state_material import model_card

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
RULES = ROOT / "sample_data" / "rules" / "hospital"
GOLDEN = ROOT / "tests" / "golden" / "routing.json"

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there"),
]


def rules() -> list[Rule]:
    return [rule for path in sorted(RULES.glob("*.yaml")) for rule in read_rules(path, keyword_vrs())]


@dataclass(frozen=True)
class Archive:
    """All series of the data, with their evidence and what they are called here: by their first file."""

    series: Mapping[str, Series]  # by Series Instance UID
    evidence: Mapping[str, Evidence]
    names: Mapping[str, str]

    def studies(self) -> dict[str, list[Evidence]]:
        """By Study Instance UID."""
        found: dict[str, list[Evidence]] = defaultdict(list)
        for uid, series in self.series.items():
            found[series.study_instance_uid].append(self.evidence[uid])
        return dict(found)

    def value(self, evidence: Evidence, keyword: str) -> str:
        element = evidence.header.get(keyword)
        return str(element.values[0]) if element is not None and element.values else ""


def archive(scratch: Path) -> Archive:
    """Archives among the data are unpacked into `scratch`."""
    for packed in sorted(DATA.rglob("*.zip")):
        zipfile.ZipFile(packed).extractall(scratch / packed.relative_to(DATA))
    found = [f.series for f in series_in([DATA, scratch]).series]
    return Archive(
        {s.series_instance_uid: s for s in found},
        {s.series_instance_uid: _evidence(s) for s in found},
        {s.series_instance_uid: _name(s, scratch) for s in found},
    )


def _evidence(series: Series) -> Evidence:
    try:
        return with_all_facts(first_look(series, Path), series, Path)
    except CannotDecode as error:
        return unreadable(series, str(error))


def _name(series: Series, scratch: Path) -> str:
    first = min(Path(instance.path) for instance in series.instances)
    return str(first.relative_to(scratch if first.is_relative_to(scratch) else DATA))


def priors(archive: Archive, study: list[Evidence]) -> list[list[Evidence]]:
    """Of the same patient, the newest first."""
    patient, date = (archive.value(study[0], keyword) for keyword in ("PatientID", "StudyDate"))
    earlier = [
        other
        for other in archive.studies().values()
        if patient
        and archive.value(other[0], "PatientID") == patient
        and "" < archive.value(other[0], "StudyDate") < date
    ]
    return sorted(earlier, key=lambda s: archive.value(s[0], "StudyDate"), reverse=True)


def table(archive: Archive) -> dict[str, dict[str, Any]]:
    asked = [Asked(rule.name, 1, rule) for rule in rules()]
    lines: dict[str, dict[str, Any]] = {}
    for study in archive.studies().values():
        for decided in decide_study(asked, study, priors(archive, study)):
            series = archive.series[decided.series_instance_uid]
            lines[archive.names[decided.series_instance_uid]] = {
                "what": f"{series.modality or 'no modality'}, {len(series.instances)}",
                **({"never": decided.evidence.no_image} if decided.evidence.no_image else {}),
                "alone": _said(decide_series(asked, decided.evidence), archive.names),
                "study": _said(decided, archive.names),
            }
    return dict(sorted(lines.items()))


def _said(decided: SeriesOutcomes, names: Mapping[str, str]) -> dict[str, str]:
    """Rule → what it came to, if it is anything but not matched, with the series of its roles."""
    told: dict[str, str] = {}
    for outcome in decided.outcomes:
        if outcome.kind is not OutcomeKind.NOT_MATCHED and outcome.kind is not OutcomeKind.STOPPED:
            roles = "".join(f", {role}: {names[uid]}" for role, uid in outcome.roles.items())
            told[outcome.asked.name] = f"{outcome.kind}{roles if outcome.kind is OutcomeKind.MATCHED else ''}"
    return told


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return archive(tmp_path_factory.mktemp("unpacked"))


def expected() -> dict[str, dict[str, Any]]:
    lines: dict[str, dict[str, Any]] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return lines


def test_every_series_goes_where_it_should(found: Archive) -> None:
    written = {name: {k: v for k, v in line.items() if k != "remark"} for name, line in expected().items()}
    assert table(found) == written


def test_there_are_ten_rules_and_each_of_them_has_something_to_say(found: Archive) -> None:
    names = {rule.name for rule in rules()}
    assert len(names) == 10
    assert {name for line in expected().values() for name in line["study"]} == names


def test_the_node_makes_the_jobs_of_the_table(found: Archive, tmp_path: Path) -> None:
    state = FakeState(FakeClock())
    state.add_destination(Destination("pacs", parse_dimse("PACS@127.0.0.1:104")))
    for rule in rules():
        state.add_rule(rule.name, rule_document(rule))
        if rule.model:
            state.add_model(replace(model_card(), name=rule.model), rule.model.ljust(64, "0"), tmp_path)
    route = RouteStage(state, FakeInstanceStore(tmp_path), FakeClock())
    asked = {name for name, line in expected().items() if line["study"].keys() - {"not-for-ai", "children"}}
    for study in sorted(found.studies().values(), key=lambda s: found.value(s[0], "StudyDate")):
        if any(found.names[evidence.series_instance_uid] in asked for evidence in study):
            _route(state, route, found, study)
    jobs = state.jobs(most=1000)
    assert {(found.names[job.series_instance_uid], job.rule.split()[0]) for job in jobs} == {
        (name, rule)
        for name, line in expected().items()
        for rule, said in line["study"].items()
        if said.startswith("matched") and rule not in ("not-for-ai", "children")  # these make no job
    }
    assert {role for job in jobs for role in job.inputs} == {"pet", "before"}


def _route(state: FakeState, route: RouteStage, archive: Archive, study: Iterable[Evidence]) -> None:
    """Receives a study and lets both phases happen."""
    images, uid = 0, ""
    for evidence in study:
        series = archive.series[evidence.series_instance_uid]
        uid = series.study_instance_uid
        state.record_instances(list(_received(archive, series, evidence)))
        complete = state.complete_series(series.series_instance_uid, 0)
        assert complete is not None
        images += len(complete.instances)
        route.route(complete)
    generation = state.complete_study(uid, Verdict(Signal.QUIET, "nothing came", images))
    assert generation is not None
    route.route_study(uid, generation)


def _received(archive: Archive, series: Series, evidence: Evidence) -> Iterable[ReceivedInstance]:
    for instance in series.instances:
        yield ReceivedInstance(
            sop_instance_uid=instance.sop_instance_uid,
            sop_class_uid=instance.sop_class_uid,
            transfer_syntax_uid=instance.transfer_syntax_uid,
            study_instance_uid=series.study_instance_uid,
            series_instance_uid=series.series_instance_uid,
            path=instance.path,
            size_bytes=1,
            sha256=instance.sop_instance_uid.rjust(64, "0"),
            received_at=FakeClock().now(),
            calling_ae_title="SENDER",
            called_ae_title="NODE",
            modality=series.modality,
            instance_number=instance.instance_number,
            patient_id=archive.value(evidence, "PatientID"),
            study_date=archive.value(evidence, "StudyDate"),
        )


def write_anew() -> None:
    """Remarks are kept."""
    before = expected() if GOLDEN.exists() else {}
    with tempfile.TemporaryDirectory() as scratch:
        lines = table(archive(Path(scratch)))
    for name, line in lines.items():
        if remark := before.get(name, {}).get("remark"):
            line["remark"] = remark
    GOLDEN.write_text(json.dumps(lines, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_anew()
