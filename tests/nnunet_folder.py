"""An nnU-Net v2 model folder by nnU-Net's own code, with tiny plans and random weights; and nnU-Net's run of it."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

PATCH = [16, 32, 32]  # (z, y, x)
RESAMPLING = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
ARCHITECTURE = {
    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "arch_kwargs": {
        "n_stages": 3,
        "features_per_stage": [4, 8, 16],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3]] * 3,
        "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
        "n_conv_per_stage": [1, 1, 1],
        "n_conv_per_stage_decoder": [1, 1],
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    },
    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
}


def plans(channels: int) -> dict[str, Any]:
    figures = {"max": 400.0, "mean": 40.0, "median": 40.0, "min": -1000.0, "std": 200.0}
    ranges = {"percentile_00_5": -900.0, "percentile_99_5": 300.0}
    return {
        "dataset_name": "Dataset042_Halves",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [3.0, 2.0, 2.0],
        "original_median_shape_after_transp": [24, 60, 52],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(n): {**figures, **ranges} for n in range(channels)},
        "configurations": {
            "3d_fullres": {
                "data_identifier": "nnUNetPlans_3d_fullres",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": PATCH,
                "median_image_size_in_voxels": [24, 60, 52],
                "spacing": [3.0, 2.0, 2.0],
                "normalization_schemes": ["CTNormalization"] * channels,
                "use_mask_for_norm": [False] * channels,
                "resampling_fn_data": "resample_data_or_seg_to_shape",
                "resampling_fn_data_kwargs": RESAMPLING,
                "resampling_fn_seg": "resample_data_or_seg_to_shape",
                "resampling_fn_seg_kwargs": {**RESAMPLING, "is_seg": True},
                "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
                "resampling_fn_probabilities_kwargs": RESAMPLING,
                "architecture": ARCHITECTURE,
                "batch_dice": False,
            }
        },
    }


def write(folder: Path, channels: Sequence[str] = ("CT",), folds: int = 2, seed: int = 0) -> Path:
    """A folder as training leaves it; each fold has weights of its own."""
    with contextlib.redirect_stdout(io.StringIO()):
        from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
    dataset = {
        "channel_names": {str(n): name for n, name in enumerate(channels)},
        "labels": {"background": 0, "spleen": 1, "liver": 2},
        "numTraining": 1,
        "file_ending": ".nii.gz",
        "description": "random weights",
    }
    document = plans(len(channels))
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(document))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    manager = PlansManager(document)
    configuration = manager.get_configuration("3d_fullres")
    for fold in range(folds):
        torch.manual_seed(seed + fold)
        network = nnUNetTrainer.build_network_architecture(manager, configuration, len(channels), 3, False)
        last = network.decoder.seg_layers[-1]
        torch.nn.init.normal_(last.weight)
        torch.nn.init.zeros_(last.bias)  # so that no class outweighs the others everywhere
        checkpoint = {
            "network_weights": network.state_dict(),
            "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": "3d_fullres"},
            "inference_allowed_mirroring_axes": (0, 1, 2),
        }
        (folder / f"fold_{fold}").mkdir()
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder


def labels_of(folder: Path, series: Sequence[Path], scratch: Path) -> npt.NDArray[np.uint8]:
    """(z, y, x) uint8 by nnU-Net itself: DICOM read by SimpleITK, written as NIfTI, read by nnU-Net's reader."""
    import SimpleITK

    with contextlib.redirect_stdout(io.StringIO()):
        from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        files = []
        for number, one in enumerate(series):
            reader = SimpleITK.ImageSeriesReader()
            reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(one)))
            files.append(str(scratch / f"case_{number:04}.nii.gz"))
            SimpleITK.WriteImage(SimpleITK.Cast(reader.Execute(), SimpleITK.sitkFloat32), files[-1])
        image, properties = SimpleITKIO().read_images(files)
        predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(folder), None)
        found: npt.NDArray[np.uint8] = predictor.predict_single_npy_array(image, properties)
    return found
