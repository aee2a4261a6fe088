#!/usr/bin/env bash
# Repeat this evidence:  run.sh WORK OUT ARGUMENT…
# On a host with two GPUs where `python3` imports vllm, torch, and subcortex with what it needs.
# WORK: a folder with a short path, kept between calls. OUT: where the samples go. The arguments are those of
# bench/swaps.py: first `--wakes 20 --swaps 0`, then `--wakes 0 --swaps 60 --kill`. From the repository's root.
set -euo pipefail
work=$1 out=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
mkdir -p "$work" "$out"
cp "${CONFIG:-$here/config.toml}" "$work/config.toml"
[ -d "$work/models" ] || python3 "$root/bench/dummy_models.py" "$work/models" ${MODELS:-llama-3.1-8b llama-3.1-70b}
python3 -m subcortex.hardware > "$out/hardware.json" || true
python3 "$root/bench/swaps.py" --config "$work/config.toml" --out "$out" --json "$@"
tail -n 400 "$work/logs/daemon.log" > "$out/daemon.log"
