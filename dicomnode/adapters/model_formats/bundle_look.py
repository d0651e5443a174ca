"""What only a bundle's own code says: asked of it once, when it is added, in a process of its own.

A bundle is code, and MONAI and torch are loaded to run it: neither stays in the process that adds it. What it prints
is not looked at but for the last line.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from dicomnode.domain.bundle_chain import SAVERS, resolved, transform_name

TIMEOUT_S = 300.0
_MASKS, _VALUE = "masks", "value"
_FAULTS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ImportError, OSError)


def labels_of_masks(folder: Path, inference: str, first: int, masks: int, timeout_s: float = TIMEOUT_S) -> list[int]:
    """The label of each set of masks (see domain/merged_masks); nothing where the bundle's code does not say.

    `inference`: its file; `first`: the transform of its postprocessing that is given the masks.
    """
    return _numbers(folder, inference, _MASKS, str(first), str(masks), timeout_s=timeout_s)


def value_of(folder: Path, inference: str, key: str, timeout_s: float = TIMEOUT_S) -> list[int]:
    """The numbers that a key of a bundle's file comes to; nothing where it comes to something else."""
    return _numbers(folder, inference, _VALUE, key, timeout_s=timeout_s)


def _numbers(folder: Path, inference: str, *asked: str, timeout_s: float) -> list[int]:
    command = [sys.executable, "-m", __name__, str(folder), inference, *asked]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        return [int(number) for number in json.loads(done.stdout.splitlines()[-1])]
    except (subprocess.TimeoutExpired, IndexError, ValueError, TypeError):
        return []


# ------------------------------------------------------------------------------------- in a process of its own


def main(folder: Path, inference: str, what: str, *asked: str) -> int:
    try:
        if what == _VALUE:
            numbers = [int(one) for one in _parser(folder, inference).get_parsed_content(asked[0])]
        else:
            numbers = _asked(folder, inference, *map(int, asked))
    except _FAULTS as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print("\n" + json.dumps(numbers))
    return 0


def _asked(folder: Path, inference: str, first: int, masks: int) -> list[int]:
    import torch

    sets = torch.arange(2**masks)
    # (mask, set, 1, 1) float32: 1 where the mask is in the set
    given = torch.stack([(sets >> mask & 1).float() for mask in range(masks)])[:, :, None, None]
    data: dict[str, Any] = {"pred": given}
    for transform in _transforms(folder, inference, first):
        data = transform(data)
    labels = data["pred"]
    if tuple(labels.shape) != (1, 2**masks, 1, 1) or bool((labels != labels.round()).any()):
        raise ValueError("no labels came of the masks")
    return [int(label) for label in labels.flatten()]


def _transforms(folder: Path, inference: str, first: int) -> list[Any]:
    parser = _parser(folder, inference)
    document = parser.config
    listed = resolved(document, document["postprocessing"])["transforms"]
    return [
        parser.get_parsed_content(f"postprocessing#transforms#{number}")
        for number, transform in enumerate(listed)
        if number >= first and transform_name(transform["_target_"]) not in SAVERS
    ]


def _parser(folder: Path, inference: str) -> Any:
    from monai.bundle.config_parser import ConfigParser

    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    return ConfigParser({**ConfigParser.load_config_file(str(folder / inference)), "bundle_root": str(folder)})


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
