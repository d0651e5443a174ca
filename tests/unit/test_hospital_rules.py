"""The rules for administrators to start from: they can be read, lint finds nothing, and the manual lists them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode.cli.rule_files import read_rules
from dicomnode.domain.clauses import Dictionary
from dicomnode.domain.rule_lint import findings_in
from dicomnode.imaging.attributes import keyword_vrs, single_valued_keywords

FOLDER = Path(__file__).parents[2] / "sample_data" / "rules" / "hospital"
FILES = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_rule_is_clean_explained_and_in_its_place(path: Path) -> None:
    (rule,) = read_rules(path, keyword_vrs())
    assert findings_in(rule, Dictionary(keyword_vrs(), single_valued_keywords())) == []
    assert rule.order == int(path.name.split("-")[0])
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert f"| {rule.order} | `{rule.name}` |" in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_each_has_a_name_of_its_own_and_none_takes_the_place_of_the_demonstration() -> None:
    names = [rule.name for path in [*FILES, FOLDER.parent / "torso-ct.yaml"] for rule in read_rules(path)]
    assert len(names) == len(set(names)) == 11
