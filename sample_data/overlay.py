"""A picture of a segmentation on its images, each frame put where its own geometry says it is.

Nothing is taken from the order of files or frames: the images are placed by their Image Position (Patient),
the segments by the SEG's per-frame positions, so that a shifted or flipped result is seen as such.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
import matplotlib
import numpy as np
import pydicom
from pydicom.misc import is_dicom
from pydicom.pixels import apply_modality_lut

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch
from pydicom.dataset import Dataset

WINDOW_HU = (-160.0, 240.0)
OPACITY = 0.38


def read_slices(files: Sequence[Path]) -> list[Dataset]:
    """The images of one series by their position along the normal."""
    images = [pydicom.dcmread(file) for file in files]
    images = [image for image in images if "ImagePositionPatient" in image and "PixelData" in image]
    return sorted(images, key=_along_normal)


def _along_normal(image: Dataset) -> float:
    cosines = np.array(image.ImageOrientationPatient, float)
    return float(np.cross(cosines[:3], cosines[3:]) @ np.array(image.ImagePositionPatient, float))


def label_map(segmentation: Dataset, images: Sequence[Dataset]) -> np.ndarray:
    """(slice, row, column) uint8 on the grid of the images; 0 where nothing was segmented.

    Frames are matched to images by position in LPS mm, to 0.01 mm.
    """
    seg = hd.seg.Segmentation.from_dataset(segmentation)
    places = {_rounded(image.ImagePositionPatient): index for index, image in enumerate(images)}
    labels = np.zeros((len(images), images[0].Rows, images[0].Columns), np.uint8)
    frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    for frame, groups in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        place = places[_rounded(groups.PlanePositionSequence[0].ImagePositionPatient)]
        number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        labels[place][frame > 0] = number
    return labels


def _rounded(position: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(float(value), 2) for value in position)


def segment_colours(segmentation: Dataset) -> dict[int, tuple[str, tuple[float, float, float]]]:
    """Segment number → (label, RGB from 0 to 1 as the SEG recommends it)."""
    colours = {}
    for item in segmentation.SegmentSequence:
        fallback = to_rgb(f"C{item.SegmentNumber % 10}")
        value = item.get("RecommendedDisplayCIELabValue")
        colours[int(item.SegmentNumber)] = (item.SegmentLabel, _rgb(value) if value is not None else fallback)
    return colours


def _rgb(cielab: Sequence[int]) -> tuple[float, float, float]:
    red, green, blue = hd.color.CIELabColor.from_dicom_value(list(cielab)).to_rgb()
    return red / 255, green / 255, blue / 255


def draw(images: Sequence[Dataset], segmentation: Dataset, picture: Path, title: str) -> None:
    """Three axial slices, one coronal and one sagittal section, each with the segments over it."""
    volume = np.stack([apply_modality_lut(image.pixel_array, image) for image in images]).astype(np.float32)
    labels = label_map(segmentation, images)
    colours = segment_colours(segmentation)
    row_mm, column_mm = (float(v) for v in images[0].PixelSpacing)
    step_mm = abs(_along_normal(images[-1]) - _along_normal(images[0])) / max(len(images) - 1, 1)
    heads_up = np.cross(*np.array(images[0].ImageOrientationPatient, float).reshape(2, 3))[2] > 0
    upright = np.s_[::-1] if heads_up else np.s_[:]
    middle_row, middle_column = _middle(labels)
    places = [int(len(images) * part) for part in (0.2, 0.5, 0.8)]
    views = [(f"slice {k + 1} of {len(images)}", volume[k], labels[k], row_mm / column_mm) for k in places]
    views.append(("coronal", volume[upright, middle_row], labels[upright, middle_row], step_mm / column_mm))
    views.append(("sagittal", volume[upright, :, middle_column], labels[upright, :, middle_column], step_mm / row_mm))
    figure, axes = plt.subplots(1, len(views), figsize=(4 * len(views), 4.6), facecolor="black")
    for axis, (name, image, mask, aspect) in zip(axes, views, strict=True):
        axis.imshow(_blend(image, mask, colours), aspect=aspect, interpolation="nearest")
        axis.set_title(name, color="white", fontsize=11)
        axis.axis("off")
    patches = [Patch(color=rgb, label=label) for label, rgb in colours.values()]
    figure.legend(
        handles=patches, loc="lower center", ncols=len(patches), frameon=False, labelcolor="white", fontsize=12
    )
    figure.suptitle(title, color="white", fontsize=13)
    figure.tight_layout(rect=(0, 0.06, 1, 0.97))
    figure.savefig(picture, dpi=80, facecolor="black")
    plt.close(figure)


def _middle(labels: np.ndarray) -> tuple[int, int]:
    """Row and column through the middle of what was segmented, or of the image."""
    if not labels.any():
        return labels.shape[1] // 2, labels.shape[2] // 2
    rows, columns = np.flatnonzero(labels.any((0, 2))), np.flatnonzero(labels.any((0, 1)))
    return int(rows[len(rows) // 2]), int(columns[len(columns) // 2])


def _blend(
    image: np.ndarray, mask: np.ndarray, colours: dict[int, tuple[str, tuple[float, float, float]]]
) -> np.ndarray:
    """(row, column, RGB) float from 0 to 1: the window in grey, the segments over it."""
    low, high = WINDOW_HU
    grey = np.clip((image - low) / (high - low), 0, 1)[..., None].repeat(3, axis=-1)
    for number, (_, rgb) in colours.items():
        inside = mask == number
        grey[inside] = (1 - OPACITY) * grey[inside] + OPACITY * np.array(rgb)
    return grey


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, help="folder with the source series")
    parser.add_argument("seg", type=Path)
    parser.add_argument("picture", type=Path)
    arguments = parser.parse_args()
    segmentation = pydicom.dcmread(arguments.seg)
    images = read_slices([file for file in sorted(arguments.images.rglob("*")) if file.is_file() and is_dicom(file)])
    draw(images, segmentation, arguments.picture, segmentation.SeriesDescription)


if __name__ == "__main__":
    main()
