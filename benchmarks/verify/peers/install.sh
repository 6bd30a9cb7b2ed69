#!/bin/sh
# An environment with saddlepoint, NeuralSAT, Marabou and (inside NeuralSAT) auto_LiRPA together.
#   sh benchmarks/verify/peers/install.sh VENV        (PYTHON: the interpreter to start from, default python3)
# NeuralSAT declares torchvision and torchaudio, whose builds want another torch than the pinned one: it is installed
# without dependencies; benchmarks/peers/stubs.py stands in for what it imports at load time and never calls here.
set -eu
venv=${1:?"usage: install.sh VENV"}
root=$(cd "$(dirname "$0")/../../.." && pwd)
"${PYTHON:-python3}" -m venv "$venv"
pip() { "$venv/bin/python" -m pip install --quiet --constraint "$root/constraints.txt" "$@"; }
pip torch numpy scipy onnx onnxruntime hatchling editables
pip --editable "$root"
pip beartype coloredlogs gurobipy networkx pillow psutil requests sortedcontainers sympy tqdm termcolor joblib pandas onnxsim
pip --no-deps neuralsat==0.2.17 maraboupy==2.0.0
