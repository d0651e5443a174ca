"""Trains the sample classifier on one CPU core, from a seed: `python -m sample_data.train_regions --work FOLDER`.

Real patients of fold `a` are trained on, those of fold `b` tell how good that is; `--fold b` turns it round, to learn
how good the same recipe is on the patients of `a`. `--export` writes the package's network.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import affine_grid, grid_sample, interpolate

from sample_data.region_net import HU_FROM, SIZE, RegionNet
from sample_data.region_slices import REGIONS, Sections, invented, real
from sample_data.train import rate_at

PACKAGE = Path(__file__).parent / "models" / "slice-ct-region"
OPSET = 17  # the newest that the legacy exporter writes and every engine here reads
_REAL_SHARE = 0.35  # of the sections of regions of which there are real ones
_TEST_SEED = 77  # trunks that no training has seen


def draw(rng: np.random.Generator, made: Sections, found: Sections, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, 1, SIDE, SIDE) HU and (n,) regions, as many of each region; of real ones, as many of each patient."""
    hu, regions = [], rng.integers(0, len(REGIONS), count)
    names = np.array(found.patients)
    for region in regions:
        patients = sorted(set(names[found.regions == region]))
        if patients and rng.random() < _REAL_SHARE:
            chosen = np.flatnonzero((found.regions == region) & (names == rng.choice(patients)))
            hu.append(found.hu[rng.choice(chosen)])
        else:
            hu.append(made.hu[rng.choice(np.flatnonzero(made.regions == region))])
    return torch.from_numpy(np.stack(hu).astype(np.float32))[:, None], torch.from_numpy(regions)


def seen(rng: np.random.Generator, hu: torch.Tensor) -> torch.Tensor:
    """The sections as scanners would send them: turned, shifted, enlarged, cut off, noisy, blurred; HU."""
    count = len(hu)
    turn = torch.from_numpy(rng.normal(0, 0.12, count)).float()
    size = torch.from_numpy(rng.uniform(0.72, 1.3, (count, 1)) * rng.uniform(0.92, 1.08, (count, 2))).float()
    flip = torch.from_numpy(np.where(rng.random((count, 2)) < (0.5, 0.06), -1.0, 1.0)).float()
    cosine, sine = turn.cos(), turn.sin()
    matrix = (
        torch.stack([torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], 1) * (size * flip)[:, None]
    )
    shift = torch.from_numpy(rng.normal(0, 0.08, (count, 2, 1))).float()
    grid = affine_grid(torch.cat([matrix, shift], 2), [count, 1, *SIZE], align_corners=False)
    moved = grid_sample(hu + 1000, grid, align_corners=False) - 1000
    return _sent(rng, moved)


def _sent(rng: np.random.Generator, hu: torch.Tensor) -> torch.Tensor:
    count = len(hu)

    def one(values: np.ndarray) -> torch.Tensor:  # type: ignore[type-arg]
        return torch.from_numpy(values).float().view(count, 1, 1, 1)

    coarse = interpolate(interpolate(hu, scale_factor=0.6, mode="bilinear"), SIZE, mode="bilinear")
    hu = torch.where(one(rng.random(count)) < 0.25, coarse, hu)
    hu = hu * one(rng.uniform(0.95, 1.05, count)) + one(rng.normal(0, 12, count))
    hu = hu + one(rng.gamma(1.5, 9.0, count)) * torch.from_numpy(rng.standard_normal(hu.shape).astype(np.float32))
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SIZE), indexing="ij")
    outside = torch.from_numpy(np.hypot(x, y) > 1.0)[None, None] & (one(rng.random(count)) < 0.3).bool()
    return torch.where(outside, torch.tensor(-1024.0), hu)


def scaled(hu: torch.Tensor) -> torch.Tensor:
    """As the card's intensity says."""
    low, high = HU_FROM
    return ((hu - low) / (high - low)).clamp(0, 1)


def train(made: Sections, found: Sections, seed: int, steps: int, batch: int) -> RegionNet:
    torch.manual_seed(seed)
    rng, net = np.random.default_rng([seed, 13]), RegionNet()
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=1e-3)
    losses = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, steps, 4e-3)
        hu, regions = draw(rng, made, found, batch)
        loss = torch.nn.functional.cross_entropy(net(scaled(seen(rng, hu))), regions, label_smoothing=0.03)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % 20 == 19:
            print(time.strftime("%H:%M:%S"), step + 1, round(sum(losses[-20:]) / 20, 4), flush=True)
    return net.eval()


def judge(net: RegionNet, sections: Sections) -> list[dict[str, object]]:
    """By patient and region: how many sections, how many of them are right, and what the others were taken for."""
    if not len(sections.hu):
        return []
    images = interpolate(
        torch.from_numpy(sections.hu.astype(np.float32))[:, None], SIZE, mode="bilinear", antialias=True
    )
    with torch.no_grad():
        found = net(scaled(images)).argmax(1).numpy()
    groups = sorted({*zip(sections.patients, sections.regions.tolist(), strict=True)})
    rows: list[dict[str, object]] = []
    for patient, region in groups:
        own = found[(np.array(sections.patients) == patient) & (sections.regions == region)]
        wrong = Counter(REGIONS[k] for k in own if k != region)
        rows.append(
            {
                "patient": patient,
                "region": REGIONS[region],
                "sections": len(own),
                "right": int((own == region).sum()),
                "taken for": dict(wrong),
            }
        )
    return rows


def export(net: RegionNet, file: Path) -> None:
    """ONNX; the number of images at a time is free."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (torch.rand(1, 1, *SIZE),),
            str(file),
            opset_version=OPSET,
            dynamo=False,
            input_names=["images"],
            output_names=["scores"],
            dynamic_axes={"images": {0: "images"}, "scores": {0: "images"}},
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--work", type=Path, default=Path(".cache/regions"), help="folder for the figures and weights"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fold", choices=("a", "b"), default="a", help="whose real patients are trained on")
    parser.add_argument("--patients", type=int, default=40, help="invented trunks")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--export", action="store_true", help=f"write {PACKAGE.name}'s network")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.work.mkdir(parents=True, exist_ok=True)
    net = train(invented(given.seed, given.patients), real(given.fold), given.seed, given.steps, given.batch)
    torch.save(net.state_dict(), given.work / f"fold-{given.fold}.pt")
    other = "b" if given.fold == "a" else "a"
    figures = judge(net, real(other)) + judge(net, invented(_TEST_SEED, 4))
    (given.work / f"fold-{given.fold}.json").write_text(json.dumps(figures, indent=1))
    for row in figures:
        print(row)
    if given.export:
        export(net, PACKAGE / "models" / "model.onnx")


if __name__ == "__main__":
    main()
