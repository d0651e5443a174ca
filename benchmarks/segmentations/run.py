"""How long a SEG takes to make, what memory, what size: by this node, and by highdicom called as its guide says.

    python -m benchmarks.segmentations.run [--rounds 3] [--segments 1 10 104] [--slices 300]

A label map of 512 × 512 with so many ellipsoids, on a CT of as many slices. Each making is a process of its own:
seconds and the peak of its memory above what it had when the label map was there. The node's time has its own check
of the file in it; highdicom's is the constructor with the label map and the source images, and `save_as`.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from datetime import UTC, datetime
from pathlib import Path

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.uid import CTImageStorage
from rich.console import Console
from rich.table import Table

from dicomnode.domain.model_card import ModelCard, parse_model_card
from dicomnode.encoding.check import check_segmentation
from dicomnode.encoding.provenance import Provenance
from dicomnode.encoding.seg import coded, encode_segmentation
from dicomnode.imaging.volume import plan_volume

SIZE = 512
MADE = Provenance("benchmark", "BENCH", "0" * 64, "none", "fp32", "benchmark", 1, datetime(2026, 1, 1, tzinfo=UTC))
MAKERS = ("highdicom", "node")


def label_map(segments: int, slices: int) -> npt.NDArray[np.uint8]:
    """(slice, row, column) uint8: ellipsoids, each in a cell of its own, nearly filling it."""
    labels = np.zeros((slices, SIZE, SIZE), np.uint8)
    a_side = int(np.ceil(segments ** (1 / 3)))
    for number, cell in enumerate(np.ndindex(a_side, a_side, a_side), 1):
        if number > segments:
            break
        _draw(labels, number, np.array(cell), np.array(labels.shape) / a_side)
    return labels


def _draw(
    labels: npt.NDArray[np.uint8], number: int, cell: npt.NDArray[np.int_], extent: npt.NDArray[np.float64]
) -> None:
    """Slice by slice: the peak of the memory is to be what is measured."""
    (k, row, column), radii = (cell + 0.5) * extent, extent * 0.45
    rows, columns = np.ogrid[:SIZE, :SIZE]
    within = ((rows - row) / radii[1]) ** 2 + ((columns - column) / radii[2]) ** 2
    for index in range(int(k - radii[0]), int(k + radii[0]) + 1):
        labels[index][within <= 1 - ((index - k) / radii[0]) ** 2] = number


def source(slices: int) -> list[Dataset]:
    return [_header(k) for k in range(slices)]


def _header(k: int) -> Dataset:
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID, header.Modality = CTImageStorage, f"2.25.{10**30 + k}", "CT"
    header.StudyInstanceUID, header.SeriesInstanceUID, header.FrameOfReferenceUID = "2.25.1", "2.25.2", "2.25.4"
    header.ImagePositionPatient, header.ImageOrientationPatient = [0, 0, k], [1, 0, 0, 0, 1, 0]
    header.PixelSpacing, header.SliceThickness, header.Rows, header.Columns = [0.8, 0.8], 1, SIZE, SIZE
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 1
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.PatientName = header.PatientID = header.PatientBirthDate = header.PatientSex = ""
    header.StudyID = header.StudyDate = header.StudyTime = header.AccessionNumber = header.ReferringPhysicianName = ""
    return header


def card(segments: int) -> ModelCard:
    lung = {"value": "39607008", "scheme": "SCT", "meaning": "Lung"}
    anatomy = {"value": "123037004", "scheme": "SCT", "meaning": "Anatomical Structure"}
    document = {
        "name": "many",
        "version": "1",
        "manufacturer": "benchmark",
        "intended_use": "benchmark",
        "limits": "benchmark",
        "input": {"modality": ["CT"], "spacing_mm": [1, 1, 1], "intensity": {"from": [0, 1]}},
        "network": {"file": "network.onnx", "window": [8, 8, 8]},
        "output": {
            "segments": [
                {"number": n, "name": f"Segment {n}", "category": anatomy, "type": lung, "colour": [n, 100, 200]}
                for n in range(1, segments + 1)
            ]
        },
    }
    return parse_model_card(document)


def make(maker: str, segments: int, slices: int, file: Path) -> dict[str, float]:
    """In this process: seconds and MB, and the bytes of the file."""
    by = by_node if maker == "node" else by_highdicom
    by(label_map(1, 8), source(8), card(1), file)  # tables are read when first needed, as in a node that runs
    labels, headers, what = label_map(segments, slices), source(slices), card(segments)
    before = _peak_mb()
    started, started_cpu = time.perf_counter(), time.process_time()
    by(labels, headers, what, file)
    seconds, cpu = time.perf_counter() - started, time.process_time() - started_cpu
    return {"seconds": seconds, "cpu": cpu, "mb": _peak_mb() - before, "bytes": file.stat().st_size}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def by_node(labels: npt.NDArray[np.uint8], headers: list[Dataset], what: ModelCard, file: Path) -> None:
    plan = plan_volume(headers)
    made = encode_segmentation(labels, plan, what, MADE)
    assert made is not None
    check_segmentation(made.as_written(), plan, pixel_bytes=made.pixel_bytes)
    with file.open("wb") as target:
        target.writelines(made)


def by_highdicom(labels: npt.NDArray[np.uint8], headers: list[Dataset], what: ModelCard, file: Path) -> None:
    descriptions = [
        hd.seg.SegmentDescription(
            segment_number=segment.number,
            segment_label=segment.name,
            segmented_property_category=coded(segment.category),
            segmented_property_type=coded(segment.type),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for segment in what.segments
    ]
    hd.seg.Segmentation(
        source_images=headers,
        pixel_array=labels,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        series_instance_uid=hd.UID(),
        series_number=1,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="benchmark",
        manufacturer_model_name="benchmark",
        software_versions="1",
        device_serial_number="1",
    ).save_as(file)


def in_its_own_process(maker: str, segments: int, slices: int) -> dict[str, float]:
    command = [
        sys.executable,
        "-m",
        __spec__.name,
        "--make",
        maker,
        "--segments",
        str(segments),
        "--slices",
        str(slices),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def deflated_bytes(file: Path) -> int:
    return len(zlib.compress(file.read_bytes()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--segments", type=int, nargs="+", default=[1, 10, 104])
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--make", choices=MAKERS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.make:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "seg.dcm"
            found = make(given.make, given.segments[0], given.slices, file)
            print(json.dumps({**found, "deflated": deflated_bytes(file)}))
        return
    show(given.segments, given.slices, given.rounds)


def show(counts: list[int], slices: int, rounds: int) -> None:
    table = Table("segments", "maker", "seconds", "CPU s", "peak MB", "MB", "deflated MB", title=f"{slices} slices")
    for segments in counts:
        runs: dict[str, list[dict[str, float]]] = {maker: [] for maker in MAKERS}
        for _ in range(rounds):
            for maker in MAKERS:
                runs[maker].append(in_its_own_process(maker, segments, slices))
        medians = {m: {k: statistics.median(r[k] for r in of) for k in of[0]} for m, of in runs.items()}
        for maker in MAKERS:
            table.add_row(str(segments), maker, *_row(medians[maker]))
        ratio = {k: medians["node"][k] / max(medians["highdicom"][k], 1e-3) for k in ("seconds", "cpu", "mb")}
        table.add_row("", "ratio", *(f"{ratio[k]:.2f}" for k in ("seconds", "cpu", "mb")))
    Console(width=100).print(table)


def _row(found: dict[str, float]) -> list[str]:
    megabytes = [f"{found[k] / 1e6:.2f}" for k in ("bytes", "deflated")]
    return [f"{found['seconds']:.2f}", f"{found['cpu']:.2f}", f"{found['mb']:.0f}", *megabytes]


if __name__ == "__main__":
    main()
