#!/bin/sh
# An environment in which saddlepoint and the attack libraries it is compared with are installed together.
#   sh benchmarks/peers/install.sh VENV        (PYTHON: the interpreter to start from, default python3)
# torchattacks and adv-lib declare torchvision, whose builds want another torch than the pinned one: they are installed
# without dependencies, and benchmarks/peers/stubs.py stands in for what they import at load time and never call here.
set -eu
venv=${1:?"usage: install.sh VENV"}
root=$(cd "$(dirname "$0")/../.." && pwd)
"${PYTHON:-python3}" -m venv "$venv"
pip() { "$venv/bin/python" -m pip install --quiet --constraint "$root/constraints.txt" "$@"; }
pip torch numpy scipy scikit-learn requests hatchling editables
pip --editable "$root"
pip --no-deps foolbox==3.3.4 adversarial-robustness-toolbox==1.20.1 torchattacks==3.5.1 adv-lib==0.2.8
pip eagerpy GitPython six tqdm setuptools
"$venv/bin/python" "$root/benchmarks/peers/stubs.py"
