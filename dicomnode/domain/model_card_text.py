"""A model version as people read it: its card, what its golden cases gave here, what runs it. Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dicomnode.domain.acceptance import Acceptance
from dicomnode.domain.boxes_output import BoxesOutput
from dicomnode.domain.coded import shown
from dicomnode.domain.measured_output import MeasuredValue
from dicomnode.domain.model_card import InputSpec, ModelCard
from dicomnode.domain.tuning import DICE, LARGEST_DIFFERENCE

Row = Sequence[str]


def card_markdown(
    card: ModelCard,
    acceptances: Sequence[Acceptance],
    tuning: Mapping[str, Any] | None,
    registered: Sequence[Row],
) -> str:
    """`registered`: label and value of what the registry knows beside the card, as its state and digest."""
    parts = [
        f"# {card.name} {card.version}",
        card.intended_use.strip(),
        f"**Limits.** {card.limits.strip()}",
        *_section("Registered", ("", ""), [*registered, *_maker(card)]),
        *_section("Takes", ("series", "modality", "values", "place"), list(_inputs(card))),
        *_section("Runs after", ("model", "how"), list(_before(card))),
        *_section("Preparation", ("", ""), list(_preparation(card))),
        *_section("Gives", *_gives(card)),
        *_section(
            "A rule may set", ("parameter", "type", "default", "allowed", "description"), list(_parameters(card))
        ),
        *_acceptance(acceptances),
        *_tuning(tuning),
    ]
    return "\n\n".join(parts) + "\n"


def _section(title: str, head: Row, rows: Sequence[Row]) -> list[str]:
    """Nothing when there are no rows."""
    if not rows:
        return []
    lines = [head, ["---"] * len(head), *rows]
    return [f"## {title}", "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)]


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def _maker(card: ModelCard) -> Iterator[Row]:
    yield "manufacturer", card.manufacturer
    yield "algorithm family", card.family
    if card.device_identifier:
        yield "device identifier", card.device_identifier


def _inputs(card: ModelCard) -> Iterator[Row]:
    main = card.input
    yield "main", " or ".join(main.modality), _of_main(main), "-"
    for role in card.roles:
        place = "the main series' frame of reference" if role.needs_same_frame_of_reference else "any"
        yield role.name, " or ".join(role.modality), _values(role.unit, role.intensity_from), place


def _of_main(spec: InputSpec) -> str:
    return (
        "from black to white in each image's own window" if spec.windowed else _values(spec.unit, spec.intensity_from)
    )


def _values(unit: str, ends: tuple[float, float]) -> str:
    return f"{ends[0]:g} to {ends[1]:g} {unit or '(any unit)'}"


def _preparation(card: ModelCard) -> Iterator[Row]:
    spec, network = card.input, card.network
    if spec.size is not None:
        yield "image", f"{spec.size[0]} × {spec.size[1]}"
    else:
        yield "orientation", spec.orientation
        yield "spacing", " × ".join(f"{mm:g}" for mm in spec.spacing_mm) + " mm"
        yield "window", " × ".join(map(str, network.window)) + f", overlap {network.overlap:g}, {network.blend}"
        if any(spec.minimum_extent_mm):
            yield "at least", " × ".join(f"{mm:g}" for mm in spec.minimum_extent_mm) + " mm"
    yield "network", f"{network.file} ({network.format}), engine {network.engine}, {network.precision}"
    if network.at_once:
        yield "at once", f"{network.at_once} at most"


def _before(card: ModelCard) -> Iterator[Row]:
    for step in card.after:
        yield str(step.model), step.use.words


def _gives(card: ModelCard) -> tuple[Row, list[Row]]:
    """Head and rows of what comes out."""
    if card.classification is not None:
        return ("class", "code"), [(one.name, shown(one.code)) for one in card.classification.classes]
    if card.measurements is not None:
        return ("measurement", "concept", "unit", "finding site", "range"), list(
            map(_value, card.measurements.values)
        )
    if card.boxes is not None:
        words = _suppression(card.boxes)
        return ("boxes of", "code", "score", "overlap"), [
            (one.name, shown(one.code), f"{card.boxes.score_least:g} or more", words) for one in card.boxes.classes
        ]
    if card.map is not None:
        ends = "any" if card.map.range is None else "{:g} to {:g}".format(*card.map.range)
        return ("map", "quantity", "unit", "range"), [(card.map.name, shown(card.map.quantity), card.map.unit, ends)]
    return ("number", "name", "type", "category", "mask"), list(_segments(card))


def _segments(card: ModelCard) -> Iterator[Row]:
    mask = "may overlap others" if card.masks.overlap else "overlaps no other"
    kinds = {"labels": mask, "probabilities": f"probabilities; {mask}", "both": f"{mask}; and probabilities"}
    for one in card.segments:
        yield str(one.number), one.name, shown(one.type), shown(one.category), kinds[card.masks.kind]


def _value(one: MeasuredValue) -> Row:
    return one.name, shown(one.code), one.unit, shown(one.finding_site) if one.finding_site else "-", one.allowed


def _suppression(boxes: BoxesOutput) -> str:
    share = boxes.non_maximum_suppression
    return "as the network leaves it" if share is None else f"at most {share:g} within a class"


def _parameters(card: ModelCard) -> Iterator[Row]:
    for spec in card.parameters.values():
        yield spec.name, spec.type, str(spec.default), spec.allowed, spec.description


def _acceptance(acceptances: Sequence[Acceptance]) -> list[str]:
    if not acceptances:
        return ["## Acceptance", "Its golden cases were never run."]
    rows = [
        (one.machine, case.name, "passed" if case.passed else "failed", case.shown_figures)
        for one in acceptances
        for case in one.cases
    ]
    words = [f"{one.words[:1].upper()}{one.words[1:]} ({one.at:%Y-%m-%d %H:%M} UTC)." for one in acceptances]
    table = _section("Acceptance", ("machine", "case", "", "figures"), rows)
    return [*(table[:1] or ["## Acceptance"]), *words, *table[1:]]


def _figure(tried: Mapping[str, Any]) -> str:
    found = tried.get("difference") if tried.get("difference") is not None else tried.get("dice")
    return "" if found is None else f"{found:.4f}"


def _tuning(tuning: Mapping[str, Any] | None) -> list[str]:
    chosen = (tuning or {}).get("chosen", {})
    if not chosen:
        return []
    rows = [
        (one["engine"], one["precision"], f"{one['seconds']:.3f}", _figure(one), one["words"])
        for one in (tuning or {}).get("candidates", [])
    ]
    of_classes = any(one.get("difference") is not None for one in (tuning or {}).get("candidates", []))
    judged_by = LARGEST_DIFFERENCE if of_classes else DICE
    table = _section("Engine", ("engine", "precision", "seconds", judged_by, ""), rows)
    words = f"`dicomnode models optimise` chose {chosen.get('engine')} {chosen.get('precision')}."
    return [*(table[:1] or ["## Engine"]), words, *table[1:]]
