"""Which host runs a package: by the form that its network comes in."""

from __future__ import annotations

from typing import Any

from dicomnode.adapters.triton.hosts.model import Host, HostSettings, card_of
from dicomnode.domain.model_output import Masks
from dicomnode.errors import InvalidModelPackage


def open_host(backend: Any, settings: HostSettings) -> Host:
    """Raises InvalidModelPackage when nothing here runs the package. `backend` as Host has it."""
    card = card_of(settings.package)
    if card.gives not in ("segments", "classification") or card.masks != Masks():
        raise InvalidModelPackage(f"no host here gives {card.gives} as this card has them", "model.yaml.output")
    network_format = card.network.format
    if network_format == "monai-bundle" and card.classification is not None:
        from dicomnode.adapters.triton.hosts.bundle_classify import BundleClassifyHost

        return BundleClassifyHost(backend, settings)
    if network_format == "monai-bundle":
        from dicomnode.adapters.triton.hosts.bundle_host import BundleHost

        return BundleHost(backend, settings)
    if network_format == "nnunet":
        from dicomnode.adapters.triton.hosts.nnunet import NnunetHost

        return NnunetHost(backend, settings)
    if network_format == "triton":
        raise InvalidModelPackage(
            "the node runs the network in a Triton directory: say its format (onnx, torchscript, openvino)",
            "model.yaml.network.format",
        )
    if card.classification is not None:
        from dicomnode.adapters.triton.hosts.classify import ClassifyHost

        return ClassifyHost(backend, settings)
    return Host(backend, settings)
