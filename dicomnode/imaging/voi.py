"""The values that an image's own window shows, from black to white (PS3.3 C.11.2)."""

from __future__ import annotations

from pydicom import Dataset

from dicomnode.imaging.geometry import Rescale
from dicomnode.imaging.headers import first_number, items, text, value

Ends = tuple[float, float]  # the lower and the higher, in the values after the rescale


def window_ends(header: Dataset, rescale: Rescale, limits: tuple[int, int]) -> Ends:
    """Of the first window; of the first VOI LUT where there is none; else all that BitsStored can hold, `limits`.

    What lies between is taken to be shown in proportion, also where a table or a sigmoid bends it.
    """
    return _of_window(header) or _of_table(header) or _of_bits(rescale, limits)


def _of_window(header: Dataset) -> Ends | None:
    """LINEAR is half a value off the others, and one narrower (PS3.3 C.11.2.1.2.1)."""
    centre, width = (first_number(header, f"Window{part}") for part in ("Center", "Width"))
    linear = (text(header, "VOILUTFunction") or "LINEAR").upper() == "LINEAR"
    if centre is None or width is None or width <= (1 if linear else 0):
        return None
    middle, half = (centre - 0.5, (width - 1) / 2) if linear else (centre, width / 2)
    return middle - half, middle + half


def _of_table(header: Dataset) -> Ends | None:
    """From the first value that the table maps to the last (PS3.3 C.11.2.1.1)."""
    for table in items(header, "VOILUTSequence"):
        descriptor = value(table, "LUTDescriptor")
        if descriptor is not None and hasattr(descriptor, "__len__") and len(descriptor) == 3:
            entries, first = int(descriptor[0]) or 1 << 16, float(descriptor[1])
            return (first, first + entries - 1) if entries > 1 else None
    return None


def _of_bits(rescale: Rescale, limits: tuple[int, int]) -> Ends:
    low, high = sorted(rescale.slope * end + rescale.intercept for end in limits)
    return low, high
