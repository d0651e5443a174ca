"""Networks from their files, on the engine that the card, the node's own measurements or this machine choose."""

from dicomnode.adapters.triton.hosts.networks.choose import load_network
from dicomnode.adapters.triton.hosts.networks.loaded import ConversionFailed, LoadedNetwork, NetworkInputs

__all__ = ["ConversionFailed", "LoadedNetwork", "NetworkInputs", "load_network"]
