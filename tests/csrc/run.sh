#!/usr/bin/env bash
# The CUDA kernels without a GPU: their bodies run on CPU threads in three builds (plain, address and
# undefined-behaviour sanitizers, thread sanitizer), then nvcc compiles them if it is there.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${OUT:-build/csrc_tests}

for sanitize in "" address,undefined thread; do
  build=$out/${sanitize:-plain}
  echo "--- emulated kernels, ${sanitize:-plain}"
  cmake -S tests/csrc -B "$build" -DZSBIR_SANITIZE="$sanitize" >/dev/null
  cmake --build "$build" --parallel >/dev/null
  ctest --test-dir "$build" --output-on-failure --no-tests=error | grep -E 'Test +#|tests passed|Total'
done

if command -v nvcc >/dev/null; then
  echo "--- nvcc"
  tests/csrc/compile_gate.sh
else
  echo "--- nvcc: not found, compile gate skipped"
fi
