"""Which host runs a package: by the form that its network comes in."""

from __future__ import annotations

from typing import Any

from dicomnode.adapters.triton.hosts.model import Host, HostSettings, card_of, prove
from dicomnode.domain.model_card import ModelCard


def open_host(backend: Any, settings: HostSettings) -> Host:
    """Raises InvalidModelPackage when nothing here runs the package. `backend` as Host has it."""
    prove(backend)
    card = card_of(settings.package)
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
    return _of_network(card)(backend, settings)


def _of_network(card: ModelCard) -> type[Host]:
    """By what a network in a file of its own gives; what only one of them imports, only that one's process loads."""
    if card.gives in ("classification", "measurements"):
        from dicomnode.adapters.triton.hosts.classify import ClassifyHost, MeasureHost

        return ClassifyHost if card.gives == "classification" else MeasureHost
    if card.gives == "boxes":
        from dicomnode.adapters.triton.hosts.boxes import BoxesHost

        return BoxesHost
    if card.output.of_images:
        from dicomnode.adapters.triton.hosts.image_masks import ImageMasksHost

        return ImageMasksHost
    if card.output.arrays == ("LABELMAP",):
        return Host
    from dicomnode.adapters.triton.hosts.values import MapHost, MasksHost

    return MapHost if card.gives == "map" else MasksHost
