#!/usr/bin/env bash
# Everything that needs a GPU, in one command and under ten minutes: build for this device, tests,
# compute-sanitizer, benchmarks, ncu. Uses the Python ($PYTHON, python3) and torch that are there and
# leaves them as they are. A stage that fails does not stop the others, but the exit code tells.
# Compact tables come last. $OUT (gpu_results) gets them as summary.txt, the records of the benchmarks,
# and every log in gpu_session.tar.gz. $BUDGET: seconds for everything (560). Not yet run on hardware.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
out=${OUT:-gpu_results}
python=${PYTHON:-python3}
budget=${BUDGET:-560}
mkdir -p "$out"
work=$(mktemp -d)
logs=$work/gpu_session
mkdir "$logs"
trap 'rm -rf "$work"' EXIT
mapfile -t rooms < <(sed -n 's/^  //p' cmake/rooms.cmake)

# --- stages ---------------------------------------------------------------------------------------
names=() results=()               # of the stages that have ended
started=() pids=() begins=()      # of those that run
alone=                            # not empty: one process at a time may use the GPU
# start NAME LIMIT COMMAND...: at most LIMIT seconds and what is left of the whole; output to NAME.log
start() {
  local name=$1 limit=$2 left=$((budget - SECONDS))
  shift 2
  if [ "$left" -lt 5 ]; then
    set -- bash -c 'exit 125'
    left=1
  fi
  {
    timeout --kill-after=5 "$((limit < left ? limit : left))" "$@" >"$logs/$name.log" 2>&1
    code=$?
    echo "$SECONDS" >"$work/$name.end"
    exit "$code"
  } &
  started+=("$name") pids+=("$!") begins+=("$SECONDS")
  if [ -n "$alone" ]; then finish; fi
}
# finish: wait for all that were started
finish() {
  local i code took failed=0
  for i in "${!started[@]}"; do
    wait "${pids[i]}"
    code=$?
    took=$(($(cat "$work/${started[i]}.end") - begins[i]))
    names+=("${started[i]}") results+=("$code")
    printf '%-28s %-22s %4d s\n' "${started[i]}" "$(verdict "$code")" "$took"
    if [ "$code" -ne 0 ]; then
      failed=1
      tail -n 12 "$logs/${started[i]}.log" | cut -c -200 | sed 's/^/    /'
    fi
  done
  started=() pids=() begins=()
  return "$failed"
}
stage() { start "$@" && finish; }
verdict() {
  case $1 in
    0) echo ok ;;
    124 | 137) echo 'FAILED (out of time)' ;;
    125) echo 'FAILED (no time left)' ;;
    127) echo 'FAILED (not found)' ;;
    *) echo "FAILED (exit code $1)" ;;
  esac
}

# --- what a stage runs ----------------------------------------------------------------------------
# shellcheck disable=SC2329 # they are run by name
build_test() { # ROOM: its C++ tests, on the device
  nvcc -std=c++20 -O2 --fmad=false -lineinfo -Icsrc -Itests/csrc -arch="sm_$arch" \
    -DZSBIR_CUDA_ARCHITECTURES="\"$arch\"" -Xcompiler -ffp-contract=off "tests/csrc/$1/test_$1_gpu.cu" \
    csrc/"$1"/*_cuda.cu csrc/"$1"/*_cpu.cpp csrc/common/cpu_features.cpp -o "$work/test_$1"
}
# shellcheck disable=SC2329
profile() { # metrics that a device does not know may end ncu; its sections are known everywhere
  local names metrics asked report=$logs/kernels sections=()
  names=$("$python" -m benchmarks.kernel_profile --kernels) || return
  metrics=$("$python" -m benchmarks.kernel_profile --metrics) || return
  for asked in SpeedOfLight LaunchStats Occupancy MemoryWorkloadAnalysis ComputeWorkloadAnalysis; do
    sections+=(--section "$asked")
  done
  for asked in "$metrics" ''; do
    ncu --clock-control none --force-overwrite --export "$report" --kernel-name "$names" \
      --launch-count 10 "${sections[@]}" ${asked:+--metrics "$asked"} \
      "$python" -m benchmarks.kernel_profile --run && [ -f "$report.ncu-rep" ] && break
  done
  ncu --import "$report.ncu-rep" --page raw --csv --print-units base >"$logs/kernels.csv" || return
  "$python" -m benchmarks.kernel_profile --show "$logs/kernels.csv"
}
export -f build_test profile
export python work logs

bench() { # NAME LIMIT ARGUMENT...: rows that do not begin in time are left out, and named
  local name=$1 limit=$2 left=$((budget - SECONDS))
  shift 2
  limit=$((limit < left ? limit : left))
  stage "$name" "$limit" "$python" -m "benchmarks.bench_$name" --device cuda --out "$logs/$name" \
    --seconds $((limit > 30 ? limit - 20 : 10)) "$@"
}
show() { # NAME MODULE: the table of a stage, also of one that did not come to its end
  local table=$logs/$1.log
  echo
  if ! grep -q '^one row again\|us/call' "$table" && [ -f "$logs/$1.json" ]; then
    table=$logs/$1.table
    "$python" -m "benchmarks.$2" --show "$logs/$1.json" >"$table"
  fi
  if grep -q '^one row again\|us/call' "$table"; then # from the line of the machine on
    tr '\r' '\n' <"$table" | awk 'shown; /; [0-9-]+, commit / { shown = 1 }' |
      grep -vE '^ *$|^remarks *$|^one row again|^-+$'
  else
    echo "$1: no record"
  fi
}

session() {
  # --- facts --------------------------------------------------------------------------------------
  local fields=name,compute_cap,memory.total,driver_version,clocks.max.sm,clocks.max.mem,power.limit
  local mode room file tool
  nvidia-smi --query-gpu=$fields --format=csv | tee "$logs/gpu.csv" ||
    { echo "gpu_session: no GPU (nvidia-smi failed)"; return 1; }
  arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d '. ')
  export arch PATH=$PATH:/usr/local/cuda/bin
  mode=$(nvidia-smi --query-gpu=compute_mode --format=csv,noheader | head -n 1)
  nvcc --version | tail -n 2
  "$python" -c 'import sys, torch; print("python", sys.version.split()[0], "torch", torch.__version__)'
  "$python" -m pip list >"$logs/packages.txt" 2>&1
  echo

  # What matters most comes first: at their limits the stages would take longer than there is time.
  # --- build --------------------------------------------------------------------------------------
  export CUDAARCHS=$arch ZSBIR_CUDA=ON
  start build 180 "$python" -m pip install --no-build-isolation --no-deps --target "$work/site" \
    --config-settings "build-dir=build/gpu_session/{wheel_tag}_$arch" . # no cache of other devices
  for room in "${rooms[@]}"; do start "build_$room" 180 bash -c "build_test $room"; done
  finish
  export PYTHONPATH=$work/site${PYTHONPATH:+:$PYTHONPATH}
  (cd "$work" && "$python" -c 'import zsbir_fast; print("tested:", zsbir_fast.__file__)')

  # --- tests and compute-sanitizer, all at the same time: they measure nothing --------------------
  case $mode in *Exclusive*) alone=yes ;; esac
  for room in "${rooms[@]}"; do start "native_$room" 30 "$work/test_$room"; done
  while read -r file; do
    start "$(basename "$file" .py)" 170 env OMP_NUM_THREADS=4 OMP_WAIT_POLICY=passive \
      TORCHINDUCTOR_COMPILE_THREADS=1 ZSBIR_STRICT=1 "$python" -m benchmarks.gpu_tests "$file"
  done < <(grep -rlE 'mark\.gpu' tests --include='test_*.py' | sort)
  for tool in memcheck racecheck initcheck synccheck; do
    for room in "${rooms[@]}"; do
      start "${tool}_$room" 120 \
        compute-sanitizer --tool "$tool" --error-exitcode 9 "$work/test_$room"
    done
  done
  finish
  alone=

  # --- benchmarks, alone --------------------------------------------------------------------------
  stage ceilings 30 "$python" -m benchmarks.ceilings --device cuda --out "$logs/ceilings"
  bench batched_map 100 --full --case quickdraw_full,quickdraw \
    --only ours,ours_counting,product_torch,copy,torch_argsort,ours_unprepared
  bench quadruplet_mining 100 --full --case b1024,b8192 --only \
    floor,ours_all_triplet,ours_all_quadruplet,ours_hard_triplet,ours_hard_quadruplet,torch_hard,torch_hard_compiled
  bench token_weighting 90 --full --case mixed_bf16,all77_bf16 \
    --only copy,products,ours,eager_trimmed,sdpa_trimmed,compiled_trimmed
  bench row_products 40 --full --case quickdraw,batch --only ours,product_torch
  stage kernels 75 bash -c profile
  bench training_step 60 --quick --case vit_base

  # --- tables -------------------------------------------------------------------------------------
  show batched_map bench_batched_map
  show quadruplet_mining bench_quadruplet_mining
  show token_weighting bench_token_weighting
  show row_products bench_row_products
  show training_step bench_training_step
  show ceilings ceilings
  echo
  grep -A 99 '^kernel ' "$logs/kernels.log" || echo "kernels: no table of ncu"
  echo
  tail -qn 1 "$logs"/native_*.log
  grep -hE '[0-9] (passed|failed)' "$logs"/test_*_gpu.log
  grep -oE '(ERROR|RACECHECK) SUMMARY.*' "$logs"/*check_*.log | sed "s|^$logs/||"
  local i failed=0
  for i in "${!names[@]}"; do
    [ "${results[i]}" -eq 0 ] || { failed=$((failed + 1)); echo "FAILED: ${names[i]}"; }
  done
  echo "gpu_session: ${#names[@]} stages, $failed failed, $SECONDS s; everything in $out"
  [ "$failed" -eq 0 ]
}

session 2>&1 | tee "$logs/summary.txt"
code=${PIPESTATUS[0]}
rm -f "$out"/gpu_session.tar.gz
for file in summary.txt kernels.csv {batched_map,quadruplet_mining,token_weighting,row_products,training_step,ceilings}.json; do
  if [ -f "$logs/$file" ]; then cp "$logs/$file" "$out/"; fi
done
tar -czf "$out/gpu_session.tar.gz" -C "$work" gpu_session
exit "$code"
