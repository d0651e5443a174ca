"""A bundle run by MONAI itself, with LoadImaged on a folder of DICOM files: what the node's labels have to be."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import torch
from monai.bundle import ConfigParser
from monai.data import decollate_batch, list_data_collate


def labels_of(bundle: Path, images: Path | list[Path] | dict[str, Path]) -> npt.NDArray[np.uint8]:
    """(slice, row, column) uint8 in the order of Instance Number; saving is left out of the chain.

    `images`: the folder of a series, or several, whose images become the channels of one; or some by their names.
    """
    if isinstance(images, list):
        prediction = _prediction(bundle, {"image": [str(one) for one in images]})
    else:
        named = images if isinstance(images, dict) else {"image": images}
        prediction = _prediction(bundle, {key: str(one) for key, one in named.items()})
    labels: npt.NDArray[np.uint8] = prediction[0].T.astype(np.uint8)
    return labels


def scores_of(bundle: Path, image: Path, *, colours: bool = False) -> npt.NDArray[np.float32]:
    """(class,) of a file, or of the folder of a series; with colours the grey image is read three times."""
    return _prediction(bundle, {"image": str(image)}, colours=colours).flatten()


def _prediction(bundle: Path, images: dict[str, Any], *, colours: bool = False) -> npt.NDArray[np.float32]:
    config = ConfigParser.load_config_file(str(bundle / "configs" / "inference.json"))
    config["bundle_root"] = str(bundle)
    config["preprocessing"]["transforms"][0].update(reader="PydicomReader")
    saver = config["postprocessing"]["transforms"].pop()
    assert saver["_target_"] == "SaveImaged"
    if colours:
        thrice = "$lambda x: torch.stack([x.reshape(x.shape[:2])] * 3, 2)"
        threefold = {"_target_": "Lambdad", "keys": "image", "func": thrice}
        config["preprocessing"]["transforms"].insert(1, threefold)
    sys.path.insert(0, str(bundle))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # MONAI's own
        try:
            return _run(ConfigParser(config), bundle, images)
        finally:
            sys.path.remove(str(bundle))
            for name in [name for name in sys.modules if name.partition(".")[0] == "scripts"]:
                del sys.modules[name]


def _run(parser: Any, bundle: Path, images: dict[str, Any]) -> npt.NDArray[np.float32]:
    before, inferer, network, after = (
        parser.get_parsed_content(name) for name in ("preprocessing", "inferer", "network", "postprocessing")
    )
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    batch = list_data_collate([before(images)])
    (prediction,) = decollate_batch({"pred": inferer(batch["image"], network.eval())})
    found: npt.NDArray[np.float32] = after({**decollate_batch(batch)[0], **prediction})["pred"].numpy()
    return found


def write_series(folder: Path, instances: list[pydicom.Dataset]) -> Path:
    folder.mkdir()
    for number, instance in enumerate(instances):
        instance.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


def dice(found: npt.NDArray[np.uint8], wanted: npt.NDArray[np.uint8], label: int) -> float:
    a, b = found == label, wanted == label
    return float(2 * (a & b).sum() / max(1, a.sum() + b.sum()))
