#!/usr/bin/env bash
# Two hosts on one machine: a run on both, one rank of which is killed with SIGKILL, must end with
# the weights of an undisturbed run.
#
#   benchmarks/two_hosts.sh [FOLDER]            (default: a temporary one, removed at the end)
#
# The hosts are network namespaces with a cable between them where the user may make these, else two
# agents of torchrun on the loopback address. PYTHON names the interpreter, STEPS how long to train.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=$(command -v "${PYTHON:-python3}")
STEPS=${STEPS:-60}
work=${1:-$(mktemp -d)}
mkdir -p "$work"
for run in whole killed; do
  [ -z "$(ls -A "$work/$run" 2>/dev/null)" ] || { echo "$work/$run: not empty; give another folder" >&2; exit 2; }
done
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" POKEGAN_CACHE="$work/cache"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} PYTHONUNBUFFERED=1
agents=()
name="pokegan-$$"

clean() {
  for agent in "${agents[@]}"; do kill -KILL "$agent" 2>/dev/null || true; done
  ip netns delete "$name-a" 2>/dev/null || true
  ip netns delete "$name-b" 2>/dev/null || true
  [ $# -gt 0 ] && rm -rf "$work"
  return 0
}
if [ $# -eq 0 ]; then trap 'clean all' EXIT; else trap 'clean' EXIT; fi

if ip netns add "$name-a" 2>/dev/null && ip netns add "$name-b" 2>/dev/null &&
  ip link add va-$$ netns "$name-a" type veth peer name vb-$$ netns "$name-b" 2>/dev/null; then
  for side in a b; do
    place="10.77.0.$([ $side = a ] && echo 1 || echo 2)"
    ip netns exec "$name-$side" ip address add "$place/24" dev "v$side-$$"
    ip netns exec "$name-$side" ip link set "v$side-$$" up
    ip netns exec "$name-$side" ip link set lo up
  done
  echo "hosts: two network namespaces, 10.77.0.1 and 10.77.0.2"
  first=10.77.0.1
  on() { # HOST COMMAND...
    local side=$1
    shift
    exec ip netns exec "$name-$side" env GLOO_SOCKET_IFNAME="v$side-$$" \
      TORCHRUN_ADDRESS="10.77.0.$([ "$side" = a ] && echo 1 || echo 2)" "$@"
  }
else
  echo "hosts: two agents on 127.0.0.1"
  first=127.0.0.1
  on() {
    shift
    exec env GLOO_SOCKET_IFNAME=lo TORCHRUN_ADDRESS=127.0.0.1 "$@"
  }
fi

job() { # NAME PORT: starts one agent a host
  agents=()
  for side in a b; do
    (on $side bash -c 'exec "$0" -m torch.distributed.run --nnodes 2 --nproc-per-node 1 \
      --max-restarts 2 --rdzv-backend c10d --rdzv-id "$2" --rdzv-endpoint "$1" \
      --rdzv-conf "is_host=$5" --local-addr "$TORCHRUN_ADDRESS" -m pokegan train hpml --data demo --size 16 --batch 16 \
      --device cpu --precision fp32 --checkpoint-every 10 --samples 4 --steps "$4" --out "$3"' \
      "$PYTHON" "$first:$2" "$1" "$work/$1" "$STEPS" "$([ $side = a ] && echo 1 || echo 0)" >"$work/$1-$side.log" 2>&1) &
    agents+=($!)
  done
}

finish() { # waits for both agents of the job
  for agent in "${agents[@]}"; do
    wait "$agent" || { tail -n 20 "$work"/*-[ab].log >&2; exit 1; }
  done
}

echo "an undisturbed run ..."
job whole 29611
finish

echo "the same run, whose rank on the second host is killed ..."
job killed 29612
until ls "$work"/killed/checkpoints/step-*.pt >/dev/null 2>&1; do
  kill -0 "${agents[0]}" || { tail -n 20 "$work"/killed-*.log; exit 1; }
  sleep 0.05
done
worker=$(pgrep -P "${agents[1]}" -f "pokegan train" | head -n 1) ||
  { echo "no worker was found" >&2; exit 1; }
kill -KILL "$worker"
echo "killed process $worker after $(ls "$work/killed/checkpoints" | tail -n 1)"
finish

grep -h "from step" "$work"/killed-*.log
cmp "$work/whole/generator.safetensors" "$work/killed/generator.safetensors"
echo "the same weights"
