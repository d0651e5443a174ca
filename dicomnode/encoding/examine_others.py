"""What can be wrong in structure sets, presentation states and encapsulated documents, seen by themselves."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom import Dataset

from dicomnode.imaging.headers import items, text, value, whole


def wrong_regions(dataset: Dataset) -> Iterator[str]:
    """Of an RT Structure Set: regions named once each, and points as many as are said (PS3.3 C.8.8.5, .6)."""
    regions = [whole(roi, "ROINumber") for roi in items(dataset, "StructureSetROISequence")]
    if len(set(regions)) < len(regions):
        yield "two regions have the same ROINumber"
    for keyword in ("ROIContourSequence", "RTROIObservationsSequence"):
        named = {whole(item, "ReferencedROINumber") for item in items(dataset, keyword)}
        if unknown := named - set(regions):
            yield f"{keyword} names {len(unknown)} regions that StructureSetROISequence does not have"
    wrong = 0
    for roi in items(dataset, "ROIContourSequence"):
        for contour in items(roi, "ContourSequence"):
            points = value(contour, "ContourData", [])
            count = len(points) if hasattr(points, "__len__") else 1
            wrong += count != 3 * (whole(contour, "NumberOfContourPoints") or -1)
    if wrong:
        yield f"{wrong} contours have not three coordinates for each point they say to have"


def wrong_graphics(dataset: Dataset) -> Iterator[str]:
    """Of a presentation state: layers that are there, points as many as are said (PS3.3 C.10.5, C.10.7)."""
    layers = {text(layer, "GraphicLayer") for layer in items(dataset, "GraphicLayerSequence")}
    for number, annotation in enumerate(items(dataset, "GraphicAnnotationSequence"), 1):
        if (layer := text(annotation, "GraphicLayer")) not in layers:
            yield f"annotation {number} is on the layer {layer!r}, which is not described"
        for graphic in items(annotation, "GraphicObjectSequence"):
            points = value(graphic, "GraphicData", [])
            count, said = (len(points) if hasattr(points, "__len__") else 1), whole(graphic, "NumberOfGraphicPoints")
            if count != 2 * (said or -1):
                yield f"annotation {number} has {count} coordinates for {said} points"


def wrong_document(dataset: Dataset) -> Iterator[str]:
    """Of an Encapsulated PDF: that it is a whole one (PS3.3 C.24.2)."""
    content = dataset.get("EncapsulatedDocument")
    if not isinstance(content, bytes):
        return  # absent: said with the attributes
    content = content[: whole(dataset, "EncapsulatedDocumentLength") or len(content)].rstrip(b"\0")
    if not content.startswith(b"%PDF-") or b"%%EOF" not in content[-1024:]:
        yield "the encapsulated document is no whole PDF"
    if text(dataset, "MIMETypeOfEncapsulatedDocument") != "application/pdf":
        yield "MIMETypeOfEncapsulatedDocument is not application/pdf"
