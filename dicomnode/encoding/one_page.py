"""A page to read: key slices, what was measured or said, and the model, as an Encapsulated PDF (PS3.3 A.45.1)."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from highdicom.sr import CodedConcept
from PIL import Image as Picture
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import EncapsulatedPDFStorage
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle, getSampleStyleSheet
from reportlab.lib.units import mm
from reportlab.platypus import Flowable, Image, Paragraph, SimpleDocTemplate, Spacer, Table

from dicomnode.domain.model_card import Segment
from dicomnode.encoding.findings import Marks
from dicomnode.encoding.lettering import is_latin, picture_of, shown_name, shown_words
from dicomnode.encoding.outcome import Outcome, Row, Statements
from dicomnode.encoding.provenance import hierarchical_reference, parameters_in_words
from dicomnode.encoding.references import instances_of
from dicomnode.encoding.secondary_capture import WARNING, pictures
from dicomnode.imaging.headers import odd_values_accepted, text, value

_KIND = "PDF"
_PICTURES_MOST, _PICTURES_A_ROW = 6, 3
_ROWS_MOST = 40
_MARGIN = 15 * mm
_FINER = 4  # pixels of drawn words for a point of the page
_WIDTH = A4[0] - 2 * _MARGIN
_TALLEST = 110 * mm  # of a picture: two rows of them have to fit a page
_GRID = [
    ("GRID", (0, 0), (-1, -1), 0.25, colors.grey),
    ("BACKGROUND", (0, 0), (-1, 0), colors.whitesmoke),
    ("VALIGN", (0, 0), (-1, -1), "MIDDLE"),
    ("FONTSIZE", (0, 0), (-1, -1), 9),
]


def encode_one_page(findings: Outcome) -> Dataset:
    """Of what is on it the data set around it says the same."""
    with odd_values_accepted():
        dataset = findings.document(_KIND, EncapsulatedPDFStorage, "DOC")
        dataset.ConversionType = "WSD"
        dataset.AcquisitionDateTime = None
        dataset.BurnedInAnnotation = "YES"
        dataset.DocumentTitle = f"{findings.card.name} {findings.card.version}"
        dataset.ConceptNameCodeSequence = [CodedConcept.from_code(codes.DCM.ImagingMeasurementReport)]
        dataset.SourceInstanceSequence = [_reference(*one) for one in instances_of(findings.plan).items()]
        if replaced := findings.made.replaced(_KIND, dataset.SeriesInstanceUID):
            dataset.PredecessorDocumentsSequence = [hierarchical_reference(p) for p in replaced]
        dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
        content = page(findings)
        dataset.EncapsulatedDocumentLength = len(content)
        dataset.EncapsulatedDocument = content + b"\0" * (len(content) % 2)
    return dataset


def _reference(sop_instance_uid: str, sop_class_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    return item


def page(findings: Outcome) -> bytes:
    """The PDF; the same bytes each time."""
    file = io.BytesIO()
    card = findings.card
    document = SimpleDocTemplate(
        file,
        pagesize=A4,
        leftMargin=_MARGIN,
        rightMargin=_MARGIN,
        topMargin=_MARGIN,
        bottomMargin=_MARGIN,
        title=f"{card.name} {card.version}",
        author=card.manufacturer,
        invariant=1,
        pageCompression=0,
    )
    said = _statements(findings) if isinstance(findings, Statements) else _marks(findings)
    document.build([*_head(findings), *said, *_model(findings)])
    return file.getvalue()


def _marks(findings: Outcome) -> list[Flowable]:
    assert isinstance(findings, Marks)
    seen = _pictures(findings) if findings.found else _words("Nothing was found.", "Heading2")
    return [seen, Spacer(0, 4 * mm), _numbers(findings)]


def _statements(said: Statements) -> list[Flowable]:
    tables = [_table(rows) for rows in said.tables if rows]
    return [
        *(_words(line, "Heading2") for line in said.words),
        *(one for table in tables for one in (Spacer(0, 4 * mm), table)),
    ]


def _table(rows: Sequence[Row]) -> Table:
    """Columns by their names in the first row."""
    names = list(rows[0])
    width = _WIDTH / len(names)
    kept = [[_words(_cell(row.get(name)), width=width - 4 * mm) for name in names] for row in rows[:_ROWS_MOST]]
    if left := len(rows) - len(kept):
        kept.append([_words(f"and {left} more: see the report", width=width - 4 * mm), *[""] * (len(names) - 1)])
    head = [name.removesuffix("_mm") + (" (mm)" if name.endswith("_mm") else "") for name in names]
    return Table([head, *kept], colWidths=[width] * len(names), style=_GRID, repeatRows=1)


def _cell(said: object) -> str:
    """As exact as the report has it; what there is not is no empty cell, which might be one that was left out."""
    return "\u2014" if said is None else f"{said:.10g}" if isinstance(said, float) else str(said)


def _style(name: str) -> ParagraphStyle:
    style: ParagraphStyle = getSampleStyleSheet()[name]
    return style


def _words(words: str, style: str = "BodyText", width: float = _WIDTH) -> Flowable:
    """A paragraph; a picture of it where the fonts of PDF readers lack letters of it."""
    if is_latin(words):
        return Paragraph(escape(words), _style(style))
    drawn = picture_of(words, _style(style).fontSize * _FINER, width * _FINER)
    return _image(drawn, drawn.width / _FINER, "LEFT")


def _head(findings: Outcome) -> list[Flowable]:
    first = findings.plan.first
    series = " ".join(w for w in (text(first, "SeriesNumber"), text(first, "SeriesDescription")) if w)
    return [
        _words(f"{findings.card.name} {findings.card.version}", "Title"),
        *(_words(line) for line in _whose(first)),
        Paragraph(f'<font color="#b00000"><b>{escape(WARNING)}</b></font>', _style("BodyText")),
        _words(f"{findings.plan.modality} series {series}, {findings.looked_at}"),
    ]


def _whose(source: Dataset) -> Iterator[str]:
    """The patient and the study, as the images have them: a page is printed, and passed on by itself."""
    number, born = text(source, "PatientID"), text(source, "PatientBirthDate")
    name = shown_name(str(value(source, "PatientName", "")))
    if patient := ", ".join(w for w in (name, number, f"born {born}" if born else "") if w):
        yield f"Patient: {shown_words(patient, number)}"
    day, accession = text(source, "StudyDate"), text(source, "AccessionNumber")
    if study := ", ".join(w for w in (day, f"accession number {accession}" if accession else "") if w):
        yield f"Study: {study}"


def _pictures(findings: Marks) -> Table:
    slices = sorted(list(dict.fromkeys(findings.page_slices))[:_PICTURES_MOST])
    width = _WIDTH / _PICTURES_A_ROW
    cells = [_image(Picture.fromarray(picture), width - 2 * mm) for _, picture in pictures(findings, slices)]
    rows = [cells[i : i + _PICTURES_A_ROW] for i in range(0, len(cells), _PICTURES_A_ROW)]
    rows[-1] += [""] * (_PICTURES_A_ROW - len(rows[-1]))
    return Table(rows, colWidths=[width] * _PICTURES_A_ROW, style=[("VALIGN", (0, 0), (-1, -1), "TOP")])


def _image(picture: Picture.Image, width: float, side: str = "CENTER") -> Image:
    file = io.BytesIO()
    picture.save(file, "PNG")
    width = min(width, _TALLEST * picture.width / picture.height)
    return Image(file, width=width, height=width * picture.height / picture.width, hAlign=side)


def _numbers(findings: Marks) -> Table:
    head = ["", "segment", *findings.head]
    every = findings.rows()
    kept = every[:_ROWS_MOST]
    rows = [["", _words(_name(segment), width=58 * mm), *words] for segment, words in kept]
    style = [
        *_GRID,
        *(("BACKGROUND", (0, i), (0, i), _colour(segment.colour)) for i, (segment, _) in enumerate(kept, 1)),
    ]
    if left := len(every) - len(kept):
        rows.append(["", _words(f"and {left} more: see the report"), "", "", "", "", ""])
    widths = [6 * mm, 60 * mm, *[(_WIDTH - 66 * mm) / 5] * 5]
    return Table([head, *rows], colWidths=widths, style=style, repeatRows=1)


def _name(segment: Segment) -> str:
    return shown_words(segment.name, f"segment {segment.number}")


def _colour(rgb: tuple[int, int, int]) -> colors.Color:
    return colors.Color(*(v / 255 for v in rgb))


def _model(findings: Outcome) -> list[Flowable]:
    card, made = findings.card, findings.made
    lines = [
        f"Manufacturer: {card.manufacturer}",
        f"Intended use: {card.intended_use}",
        f"Limits: {card.limits}",
        "; ".join(parameters_in_words(card, made)),
    ]
    return [_words("The model", "Heading2"), *(_words(line) for line in lines)]
