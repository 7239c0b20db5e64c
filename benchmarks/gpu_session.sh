#!/usr/bin/env bash
# Everything that needs a GPU, in one command and under ten minutes: build for this device, tests,
# compute-sanitizer, benchmarks. Uses the Python ($PYTHON, python3) and torch that are there, and
# installs this checkout into them, editable, without its dependencies. Logs and records go to $OUT
# (gpu_results); the tables come last. A stage that fails does not stop the others, but the exit code
# tells. Not yet run on hardware.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${OUT:-gpu_results}
python=${PYTHON:-python3}
budget=570 # seconds
mkdir -p "$out"

names=() results=()
# stage NAME LIMIT COMMAND...: at most LIMIT seconds and what is left of the whole, output to $out/NAME.log
stage() {
  local name=$1 limit=$2 begin=$SECONDS code
  shift 2
  limit=$((SECONDS + limit < budget ? limit : budget > SECONDS ? budget - SECONDS : 1))
  timeout "$limit" "$@" >"$out/$name.log" 2>&1
  code=$?
  names+=("$name")
  results+=("$code")
  printf '%-24s %-22s %4d s\n' "$name" "$(verdict "$code")" $((SECONDS - begin))
  if [ "$code" -ne 0 ]; then tail -n 15 "$out/$name.log" | sed 's/^/    /'; fi
  return "$code"
}
verdict() {
  case $1 in
    0) echo ok ;;
    124) echo 'FAILED (out of time)' ;;
    127) echo 'FAILED (not found)' ;;
    *) echo "FAILED (exit code $1)" ;;
  esac
}

# --- facts ----------------------------------------------------------------------------------------
fields=name,compute_cap,memory.total,driver_version,clocks.max.sm,clocks.max.mem,power.limit
nvidia-smi --query-gpu=$fields --format=csv | tee "$out/gpu.csv" ||
  { echo "gpu_session: no GPU (nvidia-smi failed)"; exit 1; }
arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d '. ')
nvcc --version | tail -n 2
"$python" -c 'import sys, torch; print("python", sys.version.split()[0], "torch", torch.__version__)'
echo

# What matters most comes first. At their limits the stages up to racecheck fill the budget; they should
# take about half of it, and the rest is for what follows.

# --- build ----------------------------------------------------------------------------------------
export CUDAARCHS=$arch ZSBIR_CUDA=ON
stage build 120 "$python" -m pip install --no-build-isolation --no-deps -e .
rooms=(batched_map token_weighting quadruplet_mining)
for room in "${rooms[@]}"; do
  stage "build_$room" 45 nvcc -std=c++20 -O2 --fmad=false -lineinfo -Icsrc -Itests/csrc \
    -arch="sm_$arch" -DZSBIR_CUDA_ARCHITECTURES="\"$arch\"" -Xcompiler -ffp-contract=off \
    "tests/csrc/$room/test_${room}_gpu.cu" csrc/"$room"/*_cuda.cu csrc/"$room"/*_cpu.cpp \
    csrc/common/cpu_features.cpp -o "$out/test_$room"
done

# --- tests ----------------------------------------------------------------------------------------
for room in "${rooms[@]}"; do stage "native_$room" 15 "$out/test_$room"; done
mapfile -t gpu_tests < <(grep -rlE 'mark\.gpu' tests --include='test_*.py' | sort)
# shellcheck disable=SC2016
stage pytest_gpu 150 bash -o pipefail -c '"$@" | tee /dev/stderr | grep -q "[0-9] passed"' pytest_gpu \
  "$python" -m pytest -m gpu -q "${gpu_tests[@]}" # tests that were all skipped are no success
sanitize() { # LIMIT TOOL: every room with a tool of compute-sanitizer
  for room in "${rooms[@]}"; do
    stage "$2_$room" "$1" compute-sanitizer --tool "$2" --error-exitcode 9 "$out/test_$room"
  done
}
sanitize 20 memcheck
sanitize 20 racecheck

# --- benchmarks -----------------------------------------------------------------------------------
bench=benchmarks.bench_batched_map
stage bench_quick 90 "$python" -m $bench --quick --device cuda --out "$out/batched_map_quick"
stage bench_mining 90 "$python" -m benchmarks.bench_quadruplet_mining --full --device cuda \
  --case b1024,b8192 --out "$out/quadruplet_mining" --only \
  floor,ours_all_triplet,ours_all_quadruplet,ours_hard_triplet,ours_hard_quadruplet,torch_hard,torch_hard_compiled
stage bench_tokens 90 "$python" -m benchmarks.bench_token_weighting --full --device cuda \
  --case mixed_bf16,all77_bf16 --out "$out/token_weighting" --only \
  copy,products,ours,eager_trimmed,sdpa_trimmed,compiled_trimmed
stage bench_training 60 "$python" -m benchmarks.bench_training_step --quick --device cuda \
  --case vit_base --out "$out/training_step"
sanitize 20 initcheck
sanitize 20 synccheck
stage bench_full 120 "$python" -m $bench --full --device cuda --case quickdraw_full \
  --only ours,ours_counting,copy,product_torch,torch_argsort --out "$out/batched_map_full"

# --- tables ---------------------------------------------------------------------------------------
show() { # MODULE RECORD
  if [ -f "$out/$2.json" ]; then "$python" -m "benchmarks.$1" --show "$out/$2.json"; fi
}
show bench_batched_map batched_map_quick
show bench_batched_map batched_map_full
show bench_quadruplet_mining quadruplet_mining
show bench_token_weighting token_weighting
show bench_training_step training_step
tail -n 1 "$out"/native_*.log "$out/pytest_gpu.log"
grep -hE 'ERROR SUMMARY|RACECHECK SUMMARY' "$out"/{mem,race,init,sync}check_*.log
failed=0
for i in "${!names[@]}"; do
  [ "${results[i]}" -eq 0 ] || { failed=$((failed + 1)); echo "FAILED: ${names[i]}"; }
done
echo "gpu_session: ${#names[@]} stages, $failed failed, $SECONDS s; logs in $out"
[ "$failed" -eq 0 ]
