"""Trains the sample model on one CPU core, from a seed: `python -m sample_data.train --work FOLDER`.

4400 samples in 2200 steps of 2 take about 45 minutes on one core of a server of 2024 (bf16) plus one for the
samples. It goes on from FOLDER/checkpoint.pt when that is there. `python -m sample_data.export` packs the result.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch
from monai.losses.dice import DiceCELoss
from torch.utils.data import DataLoader

from sample_data.net import CLASSES, TorsoNet
from sample_data.training_data import Samples

# Bone is thin beside air and fat, but more weight makes bone of bright vessels
_WEIGHTS = (0.8, 1.0, 1.1, 1.0)
_BONE = CLASSES.index("bone")
_BRIGHT = 0.56  # 120 HU on the card's scale
_PARTS = ("net", "average", "optimizer")


def rate_at(step: int, steps: int, most: float) -> float:
    """Learning rate: up in a line for a tenth of the steps, then down by a cosine to almost nothing."""
    warm = steps // 10
    if step < warm:
        return most * (step + 1) / warm
    return most * max(0.002, (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2)


def bone_loss(logits: torch.Tensor, image: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Tversky loss of bone that counts what is wrongly bone double, and cross entropy where all is bright.

    Among bright voxels brightness decides nothing: there, bone or not is a question of shape and place.
    """
    share, bone = logits.softmax(dim=1)[:, _BONE], classes[:, 0] == _BONE
    hit, wrong, missed = (share * bone).sum(), (share * ~bone).sum(), ((1 - share) * bone).sum()
    tversky = 1 - (hit + 1) / (hit + 0.67 * wrong + 0.33 * missed + 1)
    bright = (image[:, 0] > _BRIGHT).float()
    entropy = torch.nn.functional.cross_entropy(logits, classes[:, 0], reduction="none")
    return tversky + (entropy * bright).sum() / (bright.sum() + 1)


class Training:
    """Model, its average, optimizer and schedule, which are saved and read together."""

    def __init__(self, seed: int, steps: int, rate: float, since: int = 0) -> None:
        torch.manual_seed(seed)
        self.net = TorsoNet().to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.average = torch.optim.swa_utils.AveragedModel(
            self.net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99), use_buffers=True
        )
        self.optimizer = torch.optim.AdamW(self.net.parameters(), rate, weight_decay=1e-4)
        self.loss = DiceCELoss(to_onehot_y=True, softmax=True, batch=True, weight=torch.tensor(_WEIGHTS))
        self.step, self.steps, self.rate, self.since = 0, steps, rate, since

    def update(self, image: torch.Tensor, classes: torch.Tensor) -> float:
        """One step on (batch, 1, x, y, z) images and classes; the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(self.step - self.since, self.steps - self.since, self.rate)
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.net(image.to(memory_format=torch.channels_last_3d))
        logits = logits.float()
        loss = self.loss(logits, classes) + bone_loss(logits, image, classes)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        self.optimizer.step()
        self.average.update_parameters(self.net)
        self.step += 1
        return float(loss.detach())

    def state(self) -> dict[str, object]:
        parts = {k: getattr(self, k).state_dict() for k in _PARTS}
        return {"step": self.step, **parts}

    def load(self, state: dict[str, object]) -> None:
        self.step = int(state["step"])  # type: ignore[call-overload]
        for part in _PARTS:
            getattr(self, part).load_state_dict(state[part])


def train(work: Path, seed: int, steps: int, rate: float, since: int = 0, batch: int = 2) -> None:
    torch.set_num_threads(1)
    work.mkdir(parents=True, exist_ok=True)
    training, checkpoint = Training(seed, steps, rate, since), work / "checkpoint.pt"
    if checkpoint.exists():
        training.load(torch.load(checkpoint, weights_only=True))
    samples = Samples(seed, training.step * batch, work / "patients")
    losses: list[float] = []
    for image, classes in DataLoader(samples, batch_size=batch, num_workers=1, prefetch_factor=8):
        if training.step >= steps:
            break
        losses.append(training.update(image, classes))
        if training.step % 20 == 0:
            print(
                time.strftime("%H:%M:%S"), training.step, round(sum(losses[-20:]) / len(losses[-20:]), 4), flush=True
            )
        if training.step % 50 == 0 or training.step == steps:
            save(training.state(), checkpoint)


def save(state: dict[str, object], path: Path) -> None:
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").rename(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--work", type=Path, default=Path(".cache/train"), help="folder for the checkpoint and cached patients"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2200)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--since", type=int, default=0, help="step at which the rate starts (again)")
    given = parser.parse_args()
    train(given.work, given.seed, given.steps, given.rate, given.since)


if __name__ == "__main__":
    main()
