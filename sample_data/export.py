"""Packs the trained network: `python -m sample_data.export --work FOLDER` writes the package's two model files."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import torch

from sample_data.net import TorsoNet
from sample_data.training_data import WINDOW, Samples

PACKAGE = Path(__file__).parent / "models" / "torso-ct"
_MEASURED_BATCHES = 24
OPSET = 17  # the newest that the legacy exporter writes and every engine here reads


def trained(work: Path, seed: int) -> TorsoNet:
    """The averaged weights of a training, with the statistics of its layers measured again.

    Batch statistics gathered while weights changed, two samples at a time, do not fit the averaged weights.
    """
    state = torch.load(work / "checkpoint.pt", weights_only=True)["average"]
    net = TorsoNet()
    net.load_state_dict({k.removeprefix("module."): v for k, v in state.items() if k.startswith("module.")})
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm3d):
            layer.reset_running_stats()
            layer.momentum = None  # a plain mean over all batches
    images = (image for image, _ in Samples(seed, 0, work / "patients"))
    with torch.no_grad():
        for _ in range(_MEASURED_BATCHES):
            net.train()(torch.stack([next(images) for _ in range(4)]))
    return net.eval()


def export(net: TorsoNet, folder: Path) -> None:
    """TorchScript and ONNX of the same scores; the number of windows at a time is free in both."""
    folder.mkdir(parents=True, exist_ok=True)
    model, image = net.eval(), torch.rand(1, 1, *WINDOW)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(model, image).save(str(folder / "model.ts"))
        torch.onnx.export(
            model,
            (image,),
            str(folder / "model.onnx"),
            opset_version=OPSET,
            dynamo=False,
            input_names=["image"],
            output_names=["scores"],
            dynamic_axes={"image": {0: "windows"}, "scores": {0: "windows"}},
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path(".cache/train"), help="folder of the training")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    export(trained(given.work, given.seed), PACKAGE / "models")


if __name__ == "__main__":
    main()
