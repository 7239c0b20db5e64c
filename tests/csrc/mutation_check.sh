#!/usr/bin/env bash
# Do the tests see a missing barrier? Removes each __syncthreads() and __syncwarp() of the kernels in
# turn and expects the thread sanitizer build to fail (a race is reported, a result is wrong, or threads
# hang). About half a minute per barrier: run it after changing a kernel.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/tests"
cp -r csrc cmake "$work"
cp -r tests/csrc "$work/tests/csrc"

cmake -S "$work/tests/csrc" -B "$work/build" -DZSBIR_SANITIZE=thread >/dev/null
run() { # ROOM
  cmake --build "$work/build" --target "test_$1" >/dev/null &&
    TSAN_OPTIONS=halt_on_error=1 timeout 240 "$work/build/test_$1" >"$work/log" 2>&1
}
rooms=("${@:-}") # names of rooms; none: all
[ -n "${rooms[0]}" ] || mapfile -t rooms < <(find csrc -name '*_kernels.cuh' -exec dirname {} + | xargs -n 1 basename | sort -u)
for room in "${rooms[@]}"; do
  run "$room" || { cat "$work/log"; echo "mutation check: the unchanged kernels of $room FAILED"; exit 1; }
done

removed=0 unseen=0
while IFS=: read -r file line _; do
  cp "$file" "$work/$file"
  sed -i -E "${line}s/__sync(threads|warp)\(\);//" "$work/$file"
  removed=$((removed + 1))
  if run "$(basename "$(dirname "$file")")"; then
    echo "NOT SEEN  $file:$line"
    unseen=$((unseen + 1))
  else
    echo "seen      $file:$line  ($(grep -om1 -E 'data race|FAILED .*' "$work/log" || echo hang or crash))"
  fi
  cp "$file" "$work/$file"
done < <(for room in "${rooms[@]}"; do grep -nE '__sync(threads|warp)\(\);' -r "csrc/$room" --include='*.cuh'; done)
echo "mutation check: $removed barriers removed, $unseen not seen"
[ "$removed" -gt 0 ] && [ "$unseen" -eq 0 ]
