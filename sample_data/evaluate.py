"""How good the sample model is: `python -m sample_data.evaluate [--overlay FOLDER]`.

Runs the package through the node's own stages on phantoms of seeds that were never trained on and on real series
that were held out, and prints Dice and the 95 % Hausdorff distance. Real series have no labels of lungs, bone and
body; the references are thresholds, as `references` says.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import yaml
from scipy import ndimage

from dicomnode.domain.model_card import ModelCard, parse_model_card
from dicomnode.imaging.geometry import VolumeGeometry
from dicomnode.imaging.inference import intensity, model_input, model_labels, source_labels
from dicomnode.imaging.resample import model_grid
from dicomnode.imaging.windows import WindowedNetwork, at_once
from sample_data.export import PACKAGE
from sample_data.protocols import PROTOCOLS
from sample_data.real import REAL_DATA, RealVolume, body_mask, read_series
from sample_data.scanner import make_scan
from sample_data.training_data import shown_classes

Labels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
SEGMENTS = ("lungs", "bone", "body")
HELD_OUT = ("ct/crlm-1004", "ct/lidc-0002-part", "multi/sts_002/ct", "ct/ge-head-tilt18-variable-spacing")
# One voxel (slice, row, column) of each piece above 200 HU that is kidney or contrast in the bowel
_NOT_BONE = {"ct/crlm-1004": ((1, 182, 265), (2, 211, 159), (10, 278, 181), (14, 314, 351), (10, 267, 323))}
_PHANTOMS = (("chest-abdomen", 901), ("chest-abdomen", 902), ("thin-chest", 903), ("oblique", 904))


@dataclass(frozen=True)
class Case:
    """A volume in HU and its reference, both (slice, row, column)."""

    name: str
    hu: npt.NDArray[np.int16]
    geometry: VolumeGeometry
    reference: Labels


def phantoms() -> Iterator[Case]:
    for protocol, seed in _PHANTOMS:
        scan = make_scan(PROTOCOLS[protocol], seed)
        yield Case(f"phantom {protocol} {seed}", scan.hu, scan.geometry, shown_classes(scan.classes))


def held_out() -> Iterator[Case]:
    for path in HELD_OUT:
        if (REAL_DATA / path).is_dir():
            volume = read_series(REAL_DATA / path, path)
            geometry = VolumeGeometry(volume.hu.shape, volume.affine)  # type: ignore[arg-type]
            yield Case(path, np.rint(volume.hu).astype(np.int16), geometry, references(volume))


def references(volume: RealVolume) -> Labels:
    """Lungs, bone and body by thresholds, (slice, row, column).

    Body: the largest piece above -300 HU without thin things, holes filled slice by slice. Lungs: air below
    -500 HU in the body in pieces above 50 ml that are not pure gas (median above -920 HU), vessels closed by 5 mm.
    Bone: above 200 HU after smoothing, in pieces above 1 ml, marrow closed by 6 mm and filled slice by slice;
    pieces that a person saw to be kidney or contrast in the bowel are struck out (`_NOT_BONE`).
    """
    spacing = np.array(volume.spacing_mm)
    body = body_mask(volume.hu)
    lungs = _pieces(body & (volume.hu < -500), 50e3, spacing, lambda piece: np.median(volume.hu[piece]) > -920)
    lungs = _closed(lungs, 5.0, spacing) & body
    seeds = _NOT_BONE.get(volume.name, ())
    dense = body & (ndimage.gaussian_filter(volume.hu, 0.6 / spacing) > 200)
    bone = _pieces(dense, 1e3, spacing, lambda piece: not any(piece[seed] for seed in seeds))
    bone = np.stack([ndimage.binary_fill_holes(s) for s in _closed(bone, 6.0, spacing)]) & body & ~lungs
    reference = np.where(body, 3, 0).astype(np.uint8)
    reference[bone], reference[lungs] = 2, 1
    return reference


def _pieces(mask: Mask, least_mm3: float, spacing_mm: npt.NDArray[np.float64], keep: Callable[[Mask], bool]) -> Mask:
    """The connected pieces of at least this volume that `keep` says yes to."""
    parts, _ = ndimage.label(mask)
    sizes = np.bincount(parts.ravel()) * spacing_mm.prod()
    kept = [i for i in range(1, len(sizes)) if sizes[i] >= least_mm3 and keep(parts == i)]
    return np.isin(parts, kept)


def _closed(mask: Mask, mm: float, spacing_mm: npt.NDArray[np.float64]) -> Mask:
    """Closing by a disc in the slices, with distances instead of a large structuring element."""
    spread = np.stack([ndimage.distance_transform_edt(~s, spacing_mm[1:]) <= mm if s.any() else s for s in mask])
    closed: Mask = np.stack(
        [ndimage.distance_transform_edt(s, spacing_mm[1:]) > mm if s.any() else s for s in spread]
    )
    return closed | mask


def predict(hu: npt.NDArray[np.int16], geometry: VolumeGeometry, card: ModelCard, network: torch.nn.Module) -> Labels:
    """The node's own stages around the network; (slice, row, column) uint8."""
    grid = model_grid(geometry, card.input.orientation, card.input.spacing_mm)
    windowed, spec = WindowedNetwork(at_once(network)), card.network
    with torch.inference_mode():
        image = model_input(torch.from_numpy(hu), grid, intensity(card.input, 1.0, 0.0))
        found = model_labels(image, windowed, spec, len(card.segments) + 1, spec.overlap)
    labels: Labels = source_labels(found, grid).numpy()
    return labels


def dice(one: Mask, other: Mask) -> float:
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else float("nan")


def distance_95(one: Mask, other: Mask, spacing_mm: npt.NDArray[np.float64]) -> float:
    """mm within which 95 % of each surface has the other."""
    if not one.any() or not other.any():
        return float("nan")
    surfaces = [m & ~ndimage.binary_erosion(m) for m in (one, other)]
    box = ndimage.find_objects((one | other).astype(np.uint8))[0]
    far = []
    for here, there in (surfaces, surfaces[::-1]):
        distance = ndimage.distance_transform_edt(~there[box], spacing_mm)
        far.append(distance[here[box]])
    return float(np.percentile(np.concatenate(far), 95))


def measured(case: Case, labels: Labels) -> dict[str, dict[str, float]]:
    """Per segment: Dice, 95 % Hausdorff distance in mm, and the reference's volume in ml."""
    figures = {}
    for number, name in enumerate(SEGMENTS, 1):
        one, other = labels == number, case.reference == number
        figures[name] = {
            "dice": round(dice(one, other), 3),
            "hd95_mm": round(distance_95(one, other, case.geometry.spacing_mm), 1),
            "reference_ml": round(float(other.sum()) * case.geometry.voxel_volume_mm3 / 1000),
        }
    return figures


def evaluate(cases: Iterator[Case], overlay: Path | None) -> dict[str, dict[str, dict[str, float]]]:
    card = parse_model_card(yaml.safe_load((PACKAGE / "model.yaml").read_text()))
    network = torch.jit.load(str(PACKAGE / "models" / "model.ts")).eval()
    figures = {}
    for case in cases:
        labels = predict(case.hu, case.geometry, card, network)
        figures[case.name] = measured(case, labels)
        print(case.name, json.dumps(figures[case.name]), flush=True)
        if overlay:
            draw(case, labels, overlay / f"{case.name.replace('/', '-').replace(' ', '-')}.png")
    return figures


def draw(case: Case, labels: Labels, path: Path) -> None:
    """Five axial slices, a coronal and a sagittal one: labels above, the reference's outline below."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    n, rows, columns = case.hu.shape
    cuts: list[tuple[slice | int, ...]] = [(int(n * f),) for f in (0.06, 0.3, 0.5, 0.75, 0.96)]
    cuts += [(slice(None, None, -1), rows // 2), (slice(None, None, -1), slice(None), columns // 2)]
    figure, axes = plt.subplots(2, len(cuts), figsize=(4.5 * len(cuts), 9))
    ratio = case.geometry.spacing_mm[0] / case.geometry.spacing_mm[1]
    for shown, line in zip((labels, case.reference), axes, strict=True):
        for cut, axis in zip(cuts, line, strict=True):
            aspect = 1.0 if isinstance(cut[0], int) else ratio
            axis.imshow(case.hu[cut], cmap="gray", vmin=-250, vmax=350, aspect=aspect)
            masked = np.ma.masked_equal(shown[cut], 0)
            axis.imshow(masked, cmap="jet", vmin=1, vmax=3, alpha=0.4, aspect=aspect, interpolation="nearest")
            axis.axis("off")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=45)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--overlay", type=Path, help="folder for a picture of each case")
    parser.add_argument("--only", choices=("phantom", "real"))
    given = parser.parse_args()
    if given.only != "phantom":
        evaluate(held_out(), given.overlay)
    if given.only != "real":
        evaluate(phantoms(), given.overlay)


if __name__ == "__main__":
    main()
