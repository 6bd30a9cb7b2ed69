"""Marabou on one instance, by its Python interface as its documentation shows it: prints sat, unsat or timeout.

PEERS/bin/python benchmarks/verify/peers/marabou.py NET.onnx SPEC.vnnlib SECONDS
"""

from __future__ import annotations

import gzip
import shutil
import sys
import tempfile
from pathlib import Path


def plain(file: Path, folder: Path) -> str:
    """Marabou reads no .gz: the file itself, or an unpacked copy."""
    if file.suffix != ".gz":
        return str(file)
    copy = folder / file.stem
    with gzip.open(file, "rb") as packed, copy.open("wb") as out:
        shutil.copyfileobj(packed, out)
    return str(copy)


def main() -> None:
    from maraboupy import Marabou

    net, spec, seconds = Path(sys.argv[1]), Path(sys.argv[2]), int(float(sys.argv[3]))
    with tempfile.TemporaryDirectory() as folder:
        network = Marabou.read_onnx(plain(net, Path(folder)))
        options = Marabou.createOptions(timeoutInSeconds=seconds, numWorkers=1, verbosity=0)
        word, *_ = network.solve(propertyFilename=plain(spec, Path(folder)), options=options, verbose=False)
    print("result:", word)


if __name__ == "__main__":
    main()
