#!/usr/bin/env bash
# What is written for AMX, on a processor without it: builds the CPU kernels with emulated tiles
# (host_amx) in a temporary copy and runs the tests of convolutions and of their choice there, those
# that need AMX too. Needs AVX512-BF16.
#
#   csrc/tests/emulate_amx.sh [pytest arguments]       PYTHON names the interpreter
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
PYTHON=${PYTHON:-python3}
export CC=${CC:-gcc} CXX=${CXX:-g++}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r setup.py pyproject.toml README.md LICENSE csrc pokegan tests "$work"
rm -f "$work"/pokegan/*.so "$work"/pokegan/_build.json
cd "$work"

FORCE_CUDA=0 POKEGAN_REQUIRE_BUILD=1 CFLAGS="-include $work/csrc/tests/host_amx/amx.h" \
  "$PYTHON" setup.py build_ext --inplace >build.log 2>&1 || { cat build.log && exit 1; }

export PYTHONPATH="$work" POKEGAN_CACHE="$work/cache"
"$PYTHON" -c 'import sys; from pokegan.ops import conv_units; sys.exit(conv_units() != "AMX")' ||
  { echo "the processor has no AVX512-BF16, which AMX has beside it" && exit 1; }
# One test asks PyTorch whether the processor has AMX.
"$PYTHON" -m pytest -q -p no:cacheprovider tests/ops/test_conv*.py tests/training/test_precision.py \
  tests/networks/test_norm_behind_convolution.py tests/networks/test_convolution.py \
  --deselect tests/training/test_precision.py::test_tf32_of_a_processor_is_float32_with_split_convolutions "$@"
