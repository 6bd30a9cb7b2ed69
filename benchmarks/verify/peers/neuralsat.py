"""NeuralSAT's own command line in a process of its own, where torchvision is missing.

    PEERS/bin/python benchmarks/verify/peers/neuralsat.py --net N --spec S --timeout T --device cpu --result_file F

The registry's package keeps its programme in a top-level folder named `src` and imports it by bare names.
"""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "peers"))
import stubs


def main() -> None:
    stubs.install()
    spec = importlib.util.find_spec("src")
    if spec is None or spec.origin is None:
        raise SystemExit("NeuralSAT is not installed here: run benchmarks/verify/peers/install.sh")
    folder = Path(spec.origin).parent
    sys.path.insert(0, str(folder))
    runpy.run_path(str(folder / "main.py"), run_name="__main__")


if __name__ == "__main__":
    main()
