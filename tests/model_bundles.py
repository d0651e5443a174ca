"""MONAI bundles as the Model Zoo's documentation says that they are, with random weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser

from dicomnode.adapters.model_store import ModelStore
from dicomnode.domain.model_card import ModelCard

WINDOW = [32, 32, 32]
Maker = Callable[[Path], Path]
Change = Callable[[dict[str, Any]], object]


def card_of(package: Path, tmp_path: Path, card: Path | None = None) -> ModelCard:
    """As the model store keeps it, under that folder."""
    return ModelStore(tmp_path / "store").add(package, card)[0]


def edit(file: Path, change: Change) -> None:
    """Of what a JSON file holds, in place."""
    found = json.loads(file.read_text())
    change(found)
    file.write_text(json.dumps(found))


def metadata(name: str, channels: Mapping[str, str], **more: Any) -> dict[str, Any]:
    one = {"dtype": "float32", "spatial_shape": WINDOW, "value_range": [0, 1], "is_patch_data": True}
    return {
        "version": "0.5.9",
        "monai_version": "1.4.0",
        "pytorch_version": "2.4.0",
        "name": name,
        "task": f"{name}, by random weights",
        "description": "Segments noise in CT images",
        "authors": "nobody",
        "copyright": "nobody's",
        "data_source": "none",
        "intended_use": "This is an example, not to be used for diagnostic purposes",
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "hounsfield",
                    "modality": "CT",
                    "num_channels": 1,
                    "channel_def": {"0": "image"},
                    **one,
                }
            },
            "outputs": {
                "pred": {
                    "type": "image",
                    "format": "segmentation",
                    "num_channels": len(channels),
                    "channel_def": dict(channels),
                    **one,
                }
            },
        },
        **more,
    }


def network(classes: int, channels: int = 1) -> dict[str, Any]:
    return {
        "_target_": "UNet",
        "spatial_dims": 3,
        "in_channels": channels,
        "out_channels": classes,
        "channels": [4, 8, 16],
        "strides": [2, 2],
        "num_res_units": 1,
        "norm": "batch",
    }


def inference(classes: int, before: list[Any], after: list[Any], **more: Any) -> dict[str, Any]:
    """configs/inference.json around a chain, as the Model Zoo's bundles have it."""
    return {
        "imports": ["$import glob", "$import numpy", "$import os"],
        "bundle_root": ".",
        "image_key": "image",
        "output_dir": "$@bundle_root + '/eval'",
        "output_dtype": "$numpy.float32",
        "load_pretrain": True,
        "dataset_dir": "/data/none",
        "datalist": "$list(sorted(glob.glob(@dataset_dir + '/imagesTs/*.nii.gz')))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": network(classes),
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "@image_key"},
                {"_target_": "EnsureChannelFirstd", "keys": "@image_key"},
                *before,
            ],
        },
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': i} for i in @datalist]",
            "transform": "@preprocessing",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": WINDOW, "sw_batch_size": 4, "overlap": 0.5},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                *after,
                {
                    "_target_": "SaveImaged",
                    "keys": "pred",
                    "output_dir": "@output_dir",
                    "output_dtype": "@output_dtype",
                },
            ],
        },
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "amp": True,
        },
        "checkpointloader": {
            "_target_": "CheckpointLoader",
            "load_path": "$@bundle_root + '/models/model.pt'",
            "load_dict": {"model": "@network"},
        },
        "initialize": ["$@checkpointloader(@evaluator) if @load_pretrain else None"],
        "run": ["$@evaluator.run()"],
        **more,
    }


ORIENTED = [
    {"_target_": "Orientationd", "keys": "@image_key", "axcodes": "RAS"},
    {"_target_": "Spacingd", "keys": "@image_key", "pixdim": [2.5, 2.5, 3.0], "mode": "bilinear"},
]
SCALED = {
    "_target_": "ScaleIntensityRanged",
    "keys": "@image_key",
    "a_min": -57,
    "a_max": 164,
    "b_min": 0,
    "b_max": 1,
    "clip": True,
}
TYPED = {"_target_": "EnsureTyped", "keys": "@image_key"}
SOFTMAX = {"_target_": "Activationsd", "keys": "pred", "softmax": True}
ARGMAX = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
INVERTED = {
    "_target_": "Invertd",
    "keys": "pred",
    "transform": "@preprocessing",
    "orig_keys": "@image_key",
    "nearest_interp": False,
    "to_tensor": True,
}


def write(folder: Path, about: Mapping[str, Any], chain: Mapping[str, Any], seed: int = 0) -> Path:
    """A bundle's folder, with random weights for its network_def."""
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "metadata.json").write_text(json.dumps(about))
    (folder / "configs" / "inference.json").write_text(json.dumps(chain))
    torch.manual_seed(seed)
    network = ConfigParser({"network_def": dict(chain["network_def"])}).get_parsed_content("network_def")
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    return folder


def spleen(folder: Path) -> Path:
    """The structure of the Model Zoo's spleen_ct_segmentation, its UNet made small."""
    about = metadata("Spleen CT segmentation", {"0": "background", "1": "spleen"})
    return write(folder, about, inference(2, [*ORIENTED, SCALED, TYPED], [SOFTMAX, INVERTED, ARGMAX]))


def own_chain(folder: Path) -> Path:
    """A chain that is not the node's: normalised, cropped to the body, the largest part of each organ kept."""
    before = [
        *ORIENTED,
        {"_target_": "NormalizeIntensityd", "keys": "@image_key", "nonzero": True},
        {"_target_": "CropForegroundd", "keys": "@image_key", "source_key": "@image_key", "margin": 2},
        TYPED,
    ]
    largest = {
        "_target_": "KeepLargestConnectedComponentd",
        "keys": "pred",
        "applied_labels": [1, 2],
        "is_onehot": False,
    }
    about = metadata("Two organs", {"0": "background", "1": "liver", "2": "tumour of nothing"})
    return write(folder, about, inference(3, before, [SOFTMAX, INVERTED, ARGMAX, largest]), seed=1)


def normalised(folder: Path) -> Path:
    """Normalised by the image's own mean, cropped to the body; labels restored by nearest neighbour."""
    before = [
        *ORIENTED,
        {"_target_": "NormalizeIntensityd", "keys": "@image_key", "nonzero": True},
        {"_target_": "CropForegroundd", "keys": "@image_key", "source_key": "@image_key", "margin": 2},
        TYPED,
    ]
    about = metadata("Two organs", {"0": "background", "1": "liver", "2": "tumour of nothing"})
    after = [SOFTMAX, ARGMAX, {**INVERTED, "nearest_interp": True}]
    return write(folder, about, inference(3, before, after), seed=1)


def scripted(folder: Path) -> Path:
    """Scaled by code in the bundle, which puts clicks beside the image; what is above the mean is marked."""
    before = [ORIENTED[1], {"_target_": "scripts.scaling.Halvedd", "keys": "@image_key"}, SCALED, TYPED]
    after = [
        SOFTMAX,
        INVERTED,
        {
            "_target_": "Lambdad",
            "keys": "pred",
            "func": "$lambda p: torch.where(p[1:] > @share * p[1:].mean(), 1, 0)",
        },
    ]
    about = metadata("A spleen for sure", {"0": "background", "1": "spleen"})
    chain = inference(2, before, after, share=1.01)
    write(folder, about, chain, seed=4)
    (folder / "scripts").mkdir()
    (folder / "scripts" / "__init__.py").write_text("")
    (folder / "scripts" / "scaling.py").write_text(_SCALING)
    return folder


TWO_AND_FOUR = "$lambda x: torch.where(x[[1]] > 0, 4, x[[0]])"


def merged(folder: Path, merging: str = TWO_AND_FOUR) -> Path:
    """Two MR channels; masks that overlap, of which the bundle makes the labels 1 and 4, as those of BraTS do."""
    about = metadata("Tumours", {"0": "Whole tumor", "1": "Enhancing tumor"})
    about["network_data_format"]["inputs"]["image"].update(
        modality="MR", format="magnitude", num_channels=2, channel_def={"0": "T1c", "1": "FLAIR"}
    )
    before = [{"_target_": "NormalizeIntensityd", "keys": "@image_key", "nonzero": True, "channel_wise": True}]
    after = [
        {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
        {**INVERTED, "meta_keys": "pred_meta_dict"},
        {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5},
        {"_target_": "Lambdad", "keys": "pred", "func": merging},
    ]
    chain = inference(2, before, after, network_def=network(2, channels=2))
    del chain["preprocessing"]["transforms"][1]  # a list of files is loaded with its channels first
    return write(folder, about, chain, seed=7)


def transformer(folder: Path) -> Path:
    """A SwinUNETR with the `img_size` that it took before MONAI 1.5, made small."""
    net = {
        "_target_": "SwinUNETR",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 2,
        "feature_size": 12,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 1, 1],
    }
    chain = inference(2, [*ORIENTED, SCALED], [SOFTMAX, INVERTED, ARGMAX], network_def=net)
    chain["inferer"].update(roi_size=[64, 64, 64], sw_batch_size=1)
    write(folder, metadata("A spleen", {"0": "background", "1": "spleen"}), chain)
    file = folder / "configs" / "inference.json"
    file.write_text(json.dumps({**chain, "network_def": {**net, "img_size": 32}}))
    return folder


def searched(folder: Path) -> Path:
    """A network whose shape is read from arrays in a file of its own, as DiNTS' is from its search."""
    about = metadata("A spleen", {"0": "background", "1": "spleen"})
    chain = inference(2, [*ORIENTED, SCALED], [SOFTMAX, INVERTED, ARGMAX])
    write(folder, about, chain)
    found = {"channels": np.array([4, 8, 16]), "rate": np.float64(0.5)}
    torch.save(found, folder / "models" / "search_code.pt")
    chain["arch_ckpt_path"] = "$@bundle_root + '/models/search_code.pt'"
    chain["arch_ckpt"] = "$torch.load(@arch_ckpt_path, map_location=torch.device('cuda'))"
    chain["network_def"] = {**chain["network_def"], "channels": "$@arch_ckpt['channels'].tolist()"}
    (folder / "configs" / "inference.json").write_text(json.dumps(chain))
    return folder


def asked_for_labels(folder: Path) -> Path:
    """A network that is asked for labels, by an evaluator and an inferer of the bundle's own, as VISTA3D is."""
    about = metadata("Everything", {"0": "background", "1": "liver", "2": "kidney", "3": "spleen", "4": "pancreas"})
    after = [
        {"_target_": "monai.apps.vista3d.transforms.VistaPostTransformd", "keys": "pred"},
        {**INVERTED, "transform": "$copy.deepcopy(@preprocessing)", "nearest_interp": True},
    ]
    chain = inference(4, [*ORIENTED, SCALED, TYPED], after, network_def={"_target_": "scripts.asking.Asked"})
    chain["imports"].append("$import copy")
    chain["inferer"] = {"_target_": "scripts.asking.Inferer", "roi_size": WINDOW}
    chain["everything_labels"] = "$list(set([i + 1 for i in range(4)]) - set([2]))"
    chain["evaluator"] |= {
        "_target_": "scripts.asking.Evaluator",
        "hyper_kwargs": {"user_prompt": True, "everything_labels": "@everything_labels"},
    }
    (folder / "scripts").mkdir(parents=True)
    (folder / "scripts" / "__init__.py").write_text("")
    (folder / "scripts" / "asking.py").write_text(_ASKING)
    plain = {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 5, "kernel_size": 3, "padding": 1}
    write(folder, about, {**chain, "network_def": plain}, seed=3)
    weights = torch.load(folder / "models" / "model.pt", weights_only=True)
    torch.save({f"scores.{name}": value for name, value in weights.items()}, folder / "models" / "model.pt")
    (folder / "configs" / "inference.json").write_text(json.dumps(chain))
    return folder


def two_phases(folder: Path) -> Path:
    """Two CT series that are loaded under names of their own and put together after they were resampled."""
    about = metadata("Phases", {"0": "background", "1": "liver", "2": "spleen"})
    keys = ["arterial", "venous"]
    before = [
        {**ORIENTED[0], "keys": keys},
        {**ORIENTED[1], "keys": keys, "mode": ["bilinear", "bilinear"]},
        {"_target_": "ConcatItemsd", "keys": keys, "name": "image"},
        SCALED,
    ]
    after = [{**INVERTED, "orig_keys": "arterial"}, ARGMAX]
    chain = inference(3, before, after, network_def=network(3, channels=2))
    for transform in chain["preprocessing"]["transforms"][:2]:
        transform["keys"] = keys
    return write(folder, about, chain, seed=1)


def classifier(folder: Path, *, colours: bool = False, of_series: bool = False) -> Path:
    """Four classes, of every image resized to 48 × 40, or of the series; a DenseNet made small."""
    about = metadata("Views", {str(n): name for n, name in enumerate(("head", "chest", "abdomen", "something else"))})
    formats = about["network_data_format"]
    formats["outputs"]["pred"].update(type="probabilities", format="classes", spatial_shape=[1, 4])
    if not of_series:
        formats["inputs"]["image"].update(spatial_shape=[48, 40], num_channels=3 if colours else 1)
    size = [24, 24, 16] if of_series else [48, 40]
    before = [
        {"_target_": "ScaleIntensityd", "keys": "@image_key"},
        {"_target_": "Resized", "keys": "@image_key", "spatial_size": size},
        TYPED,
    ]
    chain = inference(2, before, [SOFTMAX], inferer={"_target_": "SimpleInferer"})
    if colours:
        chain["preprocessing"]["transforms"][1]["channel_dim"] = 2
    chain["network_def"] = {
        "_target_": "DenseNet",
        "spatial_dims": len(size),
        "in_channels": 3 if colours else 1,
        "out_channels": 4,
        "init_features": 8,
        "growth_rate": 4,
        "block_config": [2, 2],
    }
    return write(folder, about, chain, seed=5)


_SCALING = """\
from monai.transforms import MapTransform


class Halvedd(MapTransform):
    def __call__(self, data):
        found = dict(data)
        for key in self.key_iterator(found):
            found[key] = found[key] / 2
        found["guidance"] = {"spleen": [], "background": []}
        return found
"""

_ASKING = """\
import torch
from monai.inferers import Inferer as Base
from monai.inferers import sliding_window_inference


class Head:
    last_supported = 132


class Asked(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scores = torch.nn.Conv3d(1, 5, 3, padding=1)
        self.point_head = Head()

    def forward(self, image, class_vector=None, point_coords=None):
        scores = self.scores(image)[0, class_vector[:, 0]]
        return (scores - scores.mean((1, 2, 3), keepdim=True))[None]


class Inferer(Base):
    def __init__(self, roi_size):
        super().__init__()
        self.roi_size = roi_size

    def __call__(self, inputs, network, point_coords, point_labels, class_vector, labels=None, label_set=None):
        if torch.any(class_vector > network.module.point_head.last_supported):
            raise ValueError("this label is not known")
        return sliding_window_inference(
            inputs, self.roi_size, 1, network, point_coords=point_coords, class_vector=class_vector
        )


class Evaluator:
    pass
"""
