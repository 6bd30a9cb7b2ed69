"""Marabou on one instance, by its Python interface as its documentation shows it: prints sat, unsat or timeout.

PEERS/bin/python benchmarks/verify/peers/marabou.py NET.onnx SPEC.vnnlib SECONDS
"""

from __future__ import annotations

import sys


def main() -> None:
    from maraboupy import Marabou

    network = Marabou.read_onnx(sys.argv[1])
    options = Marabou.createOptions(timeoutInSeconds=int(float(sys.argv[3])), numWorkers=1, verbosity=0)
    word, *_ = network.solve(propertyFilename=sys.argv[2], options=options, verbose=False)
    print("result:", word)


if __name__ == "__main__":
    main()
