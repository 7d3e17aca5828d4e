#!/usr/bin/env bash
# One wheel, several releases of torch: builds it once, installs it beside each given Python's
# torch (in a folder of its own, so no environment changes) and calls every operator there.
#
#   csrc/tests/check_abi.sh PYTHON...          the first builds; each needs torch and numpy
#
# Without arguments: two fresh virtual environments, with torch 2.11 and with the newest. A Python
# with a CPU-only torch, given second or later, shows that the same wheel works there.
# Where torch-abi-audit is installed for the first Python (pip install torch-abi-audit, Python 3.11
# or later), it audits both modules. By hand, where it is installed for some other Python:
#   torch-abi-audit --check both pokegan/_C.abi3.so pokegan/_C_cuda.abi3.so
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fresh() { # NAME REQUIREMENT
  python3 -m venv "$work/$1"
  "$work/$1/bin/pip" install --quiet "$2" numpy ninja "setuptools>=77" wheel
  pythons+=("$work/$1/bin/python")
}

pythons=("$@")
if [ "$#" -eq 0 ]; then
  fresh newest torch
  "$work/newest/bin/pip" install --quiet torch-abi-audit || true # said so at the end
  fresh oldest "torch==2.11.*"
fi

cp -r setup.py pyproject.toml README.md LICENSE csrc pokegan "$work"
rm -f "$work"/pokegan/*.so "$work"/pokegan/_build.json
cd "$work"
POKEGAN_REQUIRE_BUILD=1 "${pythons[0]}" -m pip wheel . --quiet --no-deps --no-build-isolation \
  --wheel-dir dist
wheel=$(echo dist/*.whl)
echo "built $(basename "$wheel"), $(stat -c %s "$wheel") bytes"

for i in "${!pythons[@]}"; do
  python=${pythons[$i]}
  site="$work/site-$i"
  "$python" -m pip install --quiet --no-deps --target "$site" "$wheel"
  (cd "$site" && PYTHONPATH="$site" POKEGAN_OPS=compiled "$python" "$work/csrc/tests/smoke_check.py")
done

if "${pythons[0]}" -c "import torch_abi_audit" 2>/dev/null; then
  "${pythons[0]}" -c "import sys, torch_abi_audit.cli as audit; sys.exit(audit.main())" \
    --check both "$work"/site-0/pokegan/*.so
else
  echo "torch-abi-audit is not installed for ${pythons[0]}: modules not audited"
fi
