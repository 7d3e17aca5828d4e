#!/usr/bin/env bash
# Everything that only a GPU can show, in stages chosen by name:
#
#   benchmarks/gpu_checks.sh [build] [tests] [sanitize] [train] [modes] [profile] [bench] [ranks]   (default: all)
#
# Results go to $OUT (default: gpu-results): one log a stage, and JSON of the benchmarks. A stage
# that fails is told at the end and does not stop the others; the exit code is the count of failures.
# PYTHON names the interpreter. It needs torch, pytest and pytest-benchmark, not the network.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

OUT=${OUT:-gpu-results}
PYTHON=${PYTHON:-python3}
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
POKEGAN_CACHE=$(mktemp -d)
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" POKEGAN_CACHE

stage_build() {
  FORCE_CUDA=1 POKEGAN_REQUIRE_BUILD=1 "$PYTHON" setup.py build_ext --inplace &&
    "$PYTHON" -m pokegan doctor
}

stage_tests() {
  "$PYTHON" -m pytest -q -m gpu tests
}

stage_sanitize() {
  for tool in memcheck racecheck; do
    compute-sanitizer --tool "$tool" --error-exitcode 1 \
      "$PYTHON" -m pytest -q -m gpu tests/ops || return 1
  done
}

stage_train() {
  "$PYTHON" -m pokegan train hpml --device cuda --kimg 200 --out "$OUT/run-hpml" &&
    tail -n 1 "$OUT/run-hpml/stats.jsonl"
}

stage_modes() {
  "$PYTHON" benchmarks/step_modes.py --device cuda &&
    "$PYTHON" benchmarks/step_modes.py --device cuda --precision bf16 --steps 200
}

stage_profile() { # nsys where it is there, and a captured step beside the eager one
  for compile in off auto; do
    PYTHON="$PYTHON" benchmarks/profile.sh hpml --device cuda --compile "$compile" \
      --from-step 50 --steps 20 --out "$OUT/profile-$compile" || return 1
  done
}

stage_bench() {
  "$PYTHON" -m pytest benchmarks --benchmark-only --benchmark-json="$OUT/benchmarks.json"
}

stage_ranks() { # needs nvidia-ml-py for use and memory; one GPU shows that alone
  local count counts=(1)
  count=$(nvidia-smi --list-gpus | wc -l)
  for ranks in 2 4 8; do [ "$ranks" -gt "$count" ] || counts+=("$ranks"); done
  "$PYTHON" benchmarks/scaling.py --counts "${counts[@]}" --epochs 200 --out "$OUT/strong" &&
    "$PYTHON" benchmarks/scaling.py --counts "${counts[@]}" --epochs 200 --weak --out "$OUT/weak"
}

facts() {
  date -u +%FT%TZ
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
  "$PYTHON" -c "import torch, platform; print(torch.__version__, torch.version.cuda, platform.python_version())"
}

facts 2>&1 | tee "$OUT/machine.txt"
failed=()
for stage in "${@:-build tests sanitize train modes profile bench ranks}"; do
  for name in $stage; do
    echo "=== $name"
    "stage_$name" 2>&1 | tee "$OUT/$name.log"
    [ "${PIPESTATUS[0]}" -eq 0 ] || failed+=("$name")
  done
done
rm -rf "$POKEGAN_CACHE"
echo "failed: ${failed[*]:-none}"
exit "${#failed[@]}"
