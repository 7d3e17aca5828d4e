#!/usr/bin/env bash
# Everything that only a GPU can show, in stages chosen by name (default: all, in this order):
#
#   benchmarks/gpu_checks.sh [STAGE...]
#
#   build     the extension; when it fails, nothing else is run. Done first where it was not yet
#   tests     the tests that need a GPU, a process for each file
#   sanitize  our kernels under compute-sanitizer, which must find planted faults first
#   train     a run by the command line
#   modes     compiled and captured steps against eager ones, in float32 and in bfloat16
#   profile   where a step's time goes, eager and captured
#   bench     every mode of a step against stock PyTorch at its best, and against its floor
#   compiled  captured steps against stock PyTorch whose networks are compiled
#   recipes   every recipe's step against both forms of stock PyTorch
#   ranks     scaling over the GPUs there are; of one, its use, memory and images/s
#
# $OUT (default: gpu-results, in the repository) gets gpu_checks.log, which grows, and
# results.tar.gz, made anew after each stage: a log a stage, JSON of what was measured, runs without
# checkpoints, weights, samples and event files. Another call replaces both: give it an $OUT of its
# own. COMMIT names the commit where there is no git. Failed stages are told at the end, with exit
# code 1; it is 2 where there is no GPU. STAGE_SECONDS (default: 500) limits each stage, FILE_SECONDS (240) each
# file of tests. POKEGAN_CACHE is kept if it is set, so several calls prepare pictures once.
#
# A GPU machine without network will do. PYTHON names the interpreter: it needs torch, torchvision,
# setuptools 77, pytest, hypothesis, pytest-benchmark, matplotlib, tensorboard, tqdm, safetensors,
# nvidia-ml-py and psutil; the build nvcc of torch's CUDA.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

STAGES=(build tests sanitize train modes profile bench compiled recipes ranks)
OUT=${OUT:-gpu-results}
PYTHON=${PYTHON:-python3}
STAGE_SECONDS=${STAGE_SECONDS:-500}
FILE_SECONDS=${FILE_SECONDS:-240}
MOST_BYTES=$((15 << 20)) # of results.tar.gz
PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin
call="$0 $*"

fail() {
  echo "gpu_checks.sh: error: $*" >&2
  exit 2
}

[ $# -gt 0 ] || set -- "${STAGES[@]}"
for name in "$@"; do
  case $name in
    --help | -h)
      sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
      exit 0
      ;;
  esac
  [[ " ${STAGES[*]} " == *" $name "* ]] || fail "$name: choose of ${STAGES[*]}"
done
for number in "$STAGE_SECONDS" "$FILE_SECONDS"; do
  [[ "$number" =~ ^[1-9][0-9]{0,8}$ ]] || fail "$number: STAGE_SECONDS and FILE_SECONDS are whole numbers"
done
command -v nvidia-smi >/dev/null || fail "nvidia-smi is not in PATH: there is no NVIDIA GPU here"
command -v "$PYTHON" >/dev/null || fail "PYTHON $PYTHON: no such program"
"$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
  fail "torch of $PYTHON is missing, or sees no CUDA GPU"
[[ " $* " == *" build "* ]] ||
  "$PYTHON" -c 'import sys; from pokegan.ops import status; sys.exit(not status().cuda)' || set -- build "$@"

mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
results=$work/results
mkdir "$results"
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
export POKEGAN_CACHE=${POKEGAN_CACHE:-$work/cache}
export POKEGAN_OPS=compiled # kernels that are missing are an error, not a reason for the reference

deadline=0 # of the stage, in $SECONDS

within() { # SECONDS COMMAND...: ended when they are over, or the stage's are
  local left=$((deadline - SECONDS)) code=0
  [ "$1" -gt "$left" ] || left=$1
  shift
  if [ "$left" -le 0 ]; then
    echo "gpu_checks.sh: no time was left for: $*"
    return 124
  fi
  timeout -s INT -k 15 "$left" "$@" </dev/null || code=$?
  case $code in 124 | 137) echo "gpu_checks.sh: ended after $left s: $*" ;; esac
  return "$code"
}

limited() { within "$STAGE_SECONDS" "$@"; }
half() { within $((STAGE_SECONDS / 2)) "$@"; }

stage_build() {
  "$PYTHON" - <<'EOF' || return 1
import sys
try:
    from setuptools import __version__ as found
except ImportError:
    found = "0"
if int(found.split(".")[0]) < 77:
    sys.exit(f"gpu_checks.sh: the build needs setuptools 77 or later, here is {found}")
EOF
  limited env FORCE_CUDA=1 POKEGAN_REQUIRE_BUILD=1 "$PYTHON" setup.py build_ext --inplace &&
    limited "$PYTHON" -m pokegan doctor
}

stage_tests() {
  local file code bad=()
  while IFS= read -r file; do
    echo "--- $file"
    code=0
    within "$FILE_SECONDS" "$PYTHON" -m pytest -q -m gpu "$file" || code=$?
    case $code in 0 | 5) ;; *) bad+=("$file") ;; esac # 5: nothing of it was collected
  done < <(gpu_files | grep -v captured; gpu_files | grep captured) # those compile for minutes
  echo "files of tests that failed: ${bad[*]:-none}"
  [ ${#bad[@]} -eq 0 ]
}

gpu_files() { grep -rl --include='test_*.py' 'pytest\.mark\.gpu' tests | sort; }

stage_sanitize() { # what frees memory must be seen to do so; a graph cannot be captured then
  local tool code=0
  command -v compute-sanitizer >/dev/null ||
    { echo "gpu_checks.sh: compute-sanitizer is not in PATH, nor in ${CUDA_HOME:-/usr/local/cuda}/bin"; return 1; }
  limited nvcc -arch=native -shared -Xcompiler -fPIC -o "$work/planted.so" benchmarks/planted_faults.cu ||
    { echo "gpu_checks.sh: the planted faults were not built"; return 1; }
  for tool in memcheck racecheck; do
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 sanitize "$tool" || code=1
  done
  return "$code"
}

sanitize() { # TOOL
  local tool=$1 race=0 code=0 log=$results/sanitize-$1-tests.log planted=$results/sanitize-$1-planted.log
  # finite differences are tens of thousands of launches, of shapes that other tests have, too
  local few="not graph and not captured and not launches and not gradcheck and not both_orders and not finite"
  local check=(compute-sanitizer --tool "$tool" --kernel-name kns=pokegan --error-exitcode 1
    --target-processes all --launch-timeout 120)
  case $tool in
    memcheck) check+=(--report-api-errors no) ;; # torch asks the driver for what it may not have
    racecheck)
      race=1
      few+=" and not large" # shared memory is used alike in small tensors
      ;;
  esac
  half "${check[@]}" "$PYTHON" -c '
import ctypes, sys, torch
torch.zeros(1, device="cuda")
ctypes.CDLL(sys.argv[1]).plant(int(sys.argv[2]))' "$work/planted.so" "$race" >"$planted" 2>&1
  if ! grep -q planted_ "$planted"; then
    tail -n 20 "$planted"
    echo "gpu_checks.sh: $tool did not find the fault that was planted for it: it checks nothing here"
    return 1
  fi
  echo "--- $tool: the planted fault was found"
  half "${check[@]}" "$PYTHON" -m pytest -q -m gpu -k "$few" tests/ops \
    2>&1 | tee "$log"
  code=${PIPESTATUS[0]}
  if ! grep -Eq 'SUMMARY: 0 (errors|hazards)' "$log"; then
    echo "gpu_checks.sh: $tool did not say that it found no fault"
    return 1
  fi
  return "$code"
}

stage_train() {
  limited "$PYTHON" -m pokegan train hpml --device cuda --kimg 200 --no-plots --out "$results/run-hpml" &&
    tail -n 1 "$results/run-hpml/stats.jsonl"
}

stage_modes() {
  local code=0
  half "$PYTHON" benchmarks/step_modes.py --device cuda --json "$results/modes-fp32.json" || code=1
  half "$PYTHON" benchmarks/step_modes.py --device cuda --precision bf16 --steps 200 \
    --json "$results/modes-bf16.json" || code=1
  return "$code"
}

stage_profile() { # nsys where it is there, and a captured step beside the eager one
  local compile code=0
  for compile in off auto; do
    PYTHON="$PYTHON" half benchmarks/profile.sh hpml --device cuda --compile "$compile" \
      --from-step 50 --steps 20 --out "$results/profile-$compile" || code=1
  done
  return "$code"
}

stage_bench() { against_stock bench benchmarks/test_step.py::test_modes; }
stage_compiled() { POKEGAN_BENCH_COMPILE=1 against_stock compiled benchmarks/test_step.py::test_modes -k captured; }
stage_recipes() { against_stock recipes benchmarks/test_step.py -k "not test_modes"; }

against_stock() { # NAME ARGUMENTS OF PYTEST...
  local json=$results/$1.json
  shift
  POKEGAN_BENCH_DEVICE=cuda limited "$PYTHON" -m pytest "$@" --benchmark-only --benchmark-json="$json"
}

stage_ranks() {
  local ranks code=0 count counts=(1)
  count=$(nvidia-smi --list-gpus | wc -l)
  for ranks in 2 4 8; do [ "$ranks" -gt "$count" ] || counts+=("$ranks"); done
  half "$PYTHON" benchmarks/scaling.py --device cuda --counts "${counts[@]}" --epochs 3000 \
    --out "$results/strong" || code=1
  if [ "$count" -gt 1 ]; then # of one it is the same
    half "$PYTHON" benchmarks/scaling.py --device cuda --counts "${counts[@]}" --epochs 3000 --weak \
      --out "$results/weak" || code=1
  fi
  return "$code"
}

facts() {
  local clocks=clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.limit
  date -u +%FT%TZ
  echo "command: $call"
  echo "commit: ${COMMIT:-$(git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)}"
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
  nvidia-smi --query-gpu="$clocks" --format=csv
  nvcc --version | tail -n 2
  "$PYTHON" -c "import torch, platform; print(torch.__version__, torch.version.cuda, platform.python_version())"
}

pack() { # results.tar.gz is whole at any time: the call may end in between
  local left_out=(--exclude=checkpoints --exclude=samples --exclude='*.pt' --exclude='*.safetensors'
    --exclude='events.out.tfevents*' --exclude='*.sqlite')
  tar -C "$results" -czf "$work/results.tar.gz" "${left_out[@]}" . || return 1
  if [ "$(wc -c <"$work/results.tar.gz")" -gt "$MOST_BYTES" ]; then
    echo "gpu_checks.sh: results.tar.gz is too large: it is packed without traces"
    tar -C "$results" -czf "$work/results.tar.gz" "${left_out[@]}" --exclude='trace.json.gz' \
      --exclude='*.nsys-rep' . || return 1
  fi
  cp "$work/results.tar.gz" "$OUT/.results" && mv "$OUT/.results" "$OUT/results.tar.gz"
}

checks() { # STAGE...
  local name code failed=()
  facts 2>&1 | tee "$results/machine.txt"
  for name in "$@"; do
    echo "=== $name ($SECONDS s)"
    deadline=$((SECONDS + STAGE_SECONDS))
    "stage_$name" 2>&1 | tee "$results/$name.log"
    code=${PIPESTATUS[0]}
    [ "$code" -eq 0 ] || failed+=("$name")
    pack || failed+=("pack")
    if [ "$name" = build ] && [ "$code" -ne 0 ]; then
      echo "gpu_checks.sh: the build failed: nothing else is run"
      break
    fi
  done
  echo "=== done ($SECONDS s)"
  echo "failed: ${failed[*]:-none}"
  [ "${#failed[@]}" -eq 0 ]
}

checks "$@" 2>&1 | tee "$OUT/gpu_checks.log"
exit "${PIPESTATUS[0]}"
