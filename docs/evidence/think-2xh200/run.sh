#!/usr/bin/env bash
# Repeat this evidence:  run.sh WORK OUT
# On a host with two GPUs where `python3` imports vllm, torch, and subcortex with what it needs.
# WORK: an empty folder with a short path. OUT: where the samples go. From the repository's root.
set -euo pipefail
work=$1 out=$2
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
mkdir -p "$work" "$out"
cp "$here/config.toml" "$work/config.toml"
python3 "$root/bench/dummy_models.py" "$work/models" ${MODELS:-llama-3.1-8b llama-3.1-70b}
python3 "$root/bench/side_by_side.py" --config "$work/config.toml" --out "$out" ${ARGS:---thoughts 200} --json
