#!/usr/bin/env bash
# Repeat this evidence, from the repository's root, on a host with two GPUs where `python3` imports torch, vllm and
# subcortex with what it needs:
#
#   run.sh prepare WORK [SEEDS]     configuration, model shapes with random weights, sessions whose questions are asked
#   run.sh ask WORK FILE [SECONDS]  queue the runs that FILE lists (ask.py), and wait for them
#   run.sh follow WORK SECONDS      wait until none is left, or the time is over
#   run.sh collect WORK OUT         every run with its raw samples, the sessions, the board, the machine
#
# WORK: a folder with a short path. LLAMA: a folder with llama.cpp's programs (prepare links it as WORK/llama).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
what=$1 work=$2
shift 2
mkdir -p "$work"
export SUBCORTEX_CONFIG=$work/config.toml
subcortex() { python3 -m subcortex.cli "$@"; }

case $what in
prepare)
  cp "$here/config.toml" "$work/config.toml"
  [ -n "${LLAMA:-}" ] && ln -sfn "$LLAMA" "$work/llama"
  [ -d "$work/models/llama-3.1-8b" ] || python3 "$root/bench/dummy_models.py" "$work/models" llama-3.1-8b llama-3.1-70b
  [ $# -gt 0 ] && subcortex sessions import "$1"
  subcortex experiments --catalogue
  ;;
ask) python3 "$here/ask.py" --ask "$1" --follow "${2:-0}" ;;
follow) python3 "$here/ask.py" --follow "$1" ;;
collect)
  out=$1
  mkdir -p "$out/runs"
  subcortex hardware --json >"$out/hardware.json" || true
  subcortex experiments list --json -n 200 >"$out/runs.json"
  python3 -c '
import json, sys
for r in json.load(open(sys.argv[1])):
    print(r["id"], r["experiment"], r["subject"])' "$out/runs.json" | while read -r id name subject; do
    subcortex experiments show "$id" --json --raw >"$out/runs/$name-$subject-${id:0:16}.json" || echo "no $id"
  done
  subcortex claims list --json >"$out/claims.json" || true
  subcortex gaps list --json >"$out/gaps.json" || true
  subcortex config suggest >"$out/suggest.txt" 2>&1 || true
  cp -r "$work/sessions" "$out/" 2>/dev/null || true
  mkdir -p "$out/logs" && for log in "$work"/logs/*.log "$work"/logs/experiments/*.log; do
    [ -f "$log" ] && tail -c 200000 "$log" >"$out/logs/$(basename "$log")"
  done
  ;;
esac
