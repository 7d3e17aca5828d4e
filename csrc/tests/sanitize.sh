#!/usr/bin/env bash
# The CPU kernels, and the CUDA kernels as they run on a processor (host_cuda), under AddressSanitizer
# and UndefinedBehaviourSanitizer: builds them with both in a temporary copy and runs the kernels'
# tests there. Needs g++ and its sanitizer libraries.
#
#   csrc/tests/sanitize.sh [pytest arguments]          PYTHON names the interpreter
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
PYTHON=${PYTHON:-python3}
export CC=${CC:-gcc} CXX=${CXX:-g++}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r setup.py pyproject.toml README.md LICENSE csrc pokegan tests "$work"
rm -f "$work"/pokegan/*.so "$work"/pokegan/_build.json
cd "$work"

flags="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g"
FORCE_CUDA=0 POKEGAN_REQUIRE_BUILD=1 POKEGAN_WERROR=0 CFLAGS="$flags" LDFLAGS="$flags" \
  "$PYTHON" setup.py build_ext --inplace >build.log 2>&1 || { cat build.log && exit 1; }

# The runtime must come before everything else; libstdc++ beside it, or no exception gets through.
preload=""
for library in libasan.so libubsan.so libstdc++.so.6; do
  preload+="${preload:+:}$("$CXX" -print-file-name="$library")"
done
# Python and torch never give back all their memory, so leaks say nothing here. Compiled code and
# opcheck add nothing that these sanitizers see.
env LD_PRELOAD="$preload" PYTHONPATH="$work" POKEGAN_OPS=compiled PYTHONMALLOC=malloc \
  POKEGAN_HOST_CUDA_FLAGS="$flags" \
  ASAN_OPTIONS=detect_leaks=0:abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1 OMP_NUM_THREADS=2 \
  "$PYTHON" -m pytest tests/ops -q -p no:cacheprovider --capture=sys -m "not gpu" -k "not compile and not opcheck and not inductor" "$@"
