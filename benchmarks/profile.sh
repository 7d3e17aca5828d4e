#!/usr/bin/env bash
# Where the time of a training goes: one run by the command line, profiled over a window of steps.
#
#   benchmarks/profile.sh [RECIPE] [--from-step A] [--steps N] [--out DIR] [--tool auto|nsys|torch]
#                         [flags of pokegan train]
#
# The run has A + N steps; what comes after the first A, up to the last checkpoint, is profiled
# (default: 20 and 10). With nsys, where it is found and there is a GPU: DIR/profile.nsys-rep with
# an NVTX range for data, step and its phases, optimiser, sampling, logging and checkpoint. Else
# with torch.profiler: DIR/trace.json.gz for Perfetto or chrome://tracing. Both: DIR/shares.txt,
# the time by range; DIR/operators.txt, the time by operator or kernel; DIR/run, the run, without
# plots unless --plots is given. A step that is compiled, captured or recorded has no ranges inside, so
# without a GPU steps are eager unless --compile is given.
#
# PYTHON names the interpreter.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHON=${PYTHON:-python3}
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

fail() {
  echo "profile.sh: error: $*" >&2
  exit 2
}

whole() { # FLAG VALUE LEAST: refuses what is no whole number
  [[ "$2" =~ ^[0-9]{1,9}$ ]] && ((10#$2 >= $3)) || fail "$1 $2: a whole number of at least $3 is wanted"
}

from=20 steps=10 out=profile tool=auto plots=--no-plots
train=()
while [ $# -gt 0 ]; do
  case $1 in
    --from-step=* | --steps=* | --out=* | --tool=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
  esac
  case $1 in
    --from-step | --steps | --out | --tool)
      [ $# -gt 1 ] || fail "$1: a value is wanted"
      case $1 in
        --from-step) from=$2 ;;
        --steps) steps=$2 ;;
        --out) out=$2 ;;
        --tool) tool=$2 ;;
      esac
      shift
      ;;
    --help | -h)
      sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    --resume | --resume=* | --continue) fail "${1%%=*}: what is profiled is a new run; leave it out" ;;
    --epochs | --epochs=* | --kimg | --kimg=*)
      fail "${1%%=*}: the run is as long as --from-step and --steps say; leave it out"
      ;;
    --plots | --no-plots) plots=$1 ;;
    *) train+=("$1") ;;
  esac
  shift
done
whole --from-step "$from" 0
whole --steps "$steps" 1
from=$((10#$from)) steps=$((10#$steps))
case $tool in auto | nsys | torch) ;; *) fail "--tool $tool: choose one of auto, nsys, torch" ;; esac
command -v "$PYTHON" >/dev/null || fail "PYTHON $PYTHON: no such program"
if [ -e "$out" ] && [ ! -d "$out" ]; then fail "--out $out: a file is there; choose another name"; fi
[ -z "$(ls -A "$out" 2>/dev/null)" ] || fail "--out $out exists and is not empty; choose another name"

if [ "$tool" = nsys ]; then
  command -v nsys >/dev/null || fail "--tool nsys: nsys is not in PATH; install Nsight Systems or use --tool torch"
elif [ "$tool" = auto ]; then
  tool=torch
  if ! command -v nsys >/dev/null; then
    echo "profile.sh: nsys is not in PATH: profiling by torch.profiler"
  elif "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    tool=nsys
  else
    echo "profile.sh: torch sees no CUDA GPU: profiling by torch.profiler"
  fi
fi

mkdir -p "$out"
trap 'rmdir "$out" 2>/dev/null || true' EXIT # a run that is refused leaves nothing
run=("$PYTHON" "$root/benchmarks/profile_steps.py" --from-step "$from" --steps "$steps" --out "$out")
if [ "$tool" = torch ]; then
  "${run[@]}" --tool torch -- ${train[@]+"${train[@]}"} "$plots"
else
  nsys profile --trace=cuda,nvtx,osrt --sample=none --cpuctxsw=none --cuda-graph-trace=node \
    --capture-range=cudaProfilerApi --capture-range-end=stop --output="$out/profile" \
    "${run[@]}" --tool nvtx -- ${train[@]+"${train[@]}"} "$plots"
  [ -s "$out/profile.nsys-rep" ] || fail "nsys left no report: see its messages above; --tool torch needs none"
  nsys stats --report nvtx_sum --format table "$out/profile.nsys-rep" >"$out/shares.txt"
  nsys stats --report cuda_gpu_kern_sum --format table "$out/profile.nsys-rep" >"$out/operators.txt"
  cat "$out/shares.txt"
  echo "profile   $out/profile.nsys-rep, $out/shares.txt, $out/operators.txt"
fi
