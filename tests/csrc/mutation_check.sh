#!/usr/bin/env bash
# Do the tests see a missing barrier? Removes each __syncthreads() of the kernels in turn and expects
# the thread sanitizer build to fail (a race is reported, a result is wrong, or threads hang). About
# half a minute per barrier: run it after changing a kernel.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/tests"
cp -r csrc "$work/csrc"
cp -r tests/csrc "$work/tests/csrc"

cmake -S "$work/tests/csrc" -B "$work/build" -DZSBIR_SANITIZE=thread >/dev/null
run() {
  cmake --build "$work/build" --target test_batched_map >/dev/null &&
    TSAN_OPTIONS=halt_on_error=1 timeout 120 "$work/build/test_batched_map" >"$work/log" 2>&1
}
run || { cat "$work/log"; echo "mutation check: the unchanged kernels FAILED"; exit 1; }

removed=0 unseen=0
while IFS=: read -r file line _; do
  cp "$file" "$work/$file"
  sed -i "${line}s/__syncthreads();//" "$work/$file"
  removed=$((removed + 1))
  if run; then
    echo "NOT SEEN  $file:$line"
    unseen=$((unseen + 1))
  else
    echo "seen      $file:$line  ($(grep -om1 -E 'data race|FAILED .*' "$work/log" || echo hang or crash))"
  fi
  cp "$file" "$work/$file"
done < <(grep -n '__syncthreads();' -r csrc --include='*.cuh')
echo "mutation check: $removed barriers removed, $unseen not seen"
[ "$removed" -gt 0 ] && [ "$unseen" -eq 0 ]
