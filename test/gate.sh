#!/usr/bin/env bash
# npm test: the one gate. Runs on a fresh Debian 12, as root or not: installs what is missing, then checks style, builds
# (with sanitizers too), type-checks and runs every test. Non-zero when anything failed; safe to run again.
#   test/gate.sh [--long]     --long (or BURROW_LONG=1) also runs *.long.test.ts and lets the others take their time
# Leaves in build/gate/: one log a step, tap's own output, and `counts`: "N passed, N failed".
set -uo pipefail
cd "$(dirname "$0")/.."
started=$SECONDS
isLong=${BURROW_LONG:-}
case ${1:-} in
  '') ;;
  --long) isLong=1 ;;
  *) echo "usage: test/gate.sh [--long]" >&2; exit 2 ;;
esac
# Of all tests, and of one file: a long test has a limit of its own, which that of files must not cut short.
testSeconds=1000 fileSeconds=420
if [ "$isLong" = 1 ]; then export BURROW_LONG=1; testSeconds=21600 fileSeconds=7200; else unset BURROW_LONG; fi

out=build/gate
mkdir -p "$out" || exit 1
rm -f "$out"/*
summary=() failed=0

# step NAME COMMAND…: runs it, shows its output when it fails, goes on either way.
step() {
  local name=$1 from=$SECONDS status=0
  shift
  printf '== %s\n' "$name"
  "$@" >"$out/$name.log" 2>&1 || status=$?
  if [ $status -ne 0 ]; then
    failed=$((failed + 1))
    tail -n 200 "$out/$name.log"
    printf 'failed: %s (status %s; all of it in %s)\n' "$name" $status "$out/$name.log"
    summary+=("failed   $name, $((SECONDS - from)) s")
  else
    grep -E '^(burrow|skipped|flaky): ' "$out/$name.log"
    summary+=("ok       $name, $((SECONDS - from)) s")
  fi
  return $status
}

finish() {
  local counts
  counts=$(cat "$out/tests.counts" 2>/dev/null) || counts="0 0 0"
  read -r passed bad skipped <<<"$counts"
  printf '\n== summary\n'
  printf '%s\n' "${summary[@]}"
  echo "$((SECONDS - started)) s in all"
  # A failed step beside the tests counts as one failure: nobody may read "0 failed" off a red gate.
  [ "$failed" -gt 0 ] && [ "$bad" -eq 0 ] && bad=$failed
  echo "$skipped skipped"
  echo "$passed passed, $bad failed" | tee "$out/counts"
  [ "$failed" -eq 0 ]
  exit
}

# JavaScript whose source is gone must not run; and what was removed by hand must be made again, which an incremental
# tsc doesn't.
prune() {
  local file isWhole=1
  [ -d dist ] || return 0
  while IFS= read -r file; do
    [ -f "${file:5:-3}.ts" ] || rm -v -- "$file" "$file.map"
  done < <(find dist/lib dist/test dist/bench dist/fixtures -name '*.js' 2>/dev/null)
  while IFS= read -r file; do
    [ -f "dist/${file%.ts}.js" ] || isWhole=0
  done < <(find lib test bench -name '*.ts' ! -name '*.d.ts')
  [ "$isWhole" = 1 ] || rm -f dist/.tsbuildinfo
}

types() { prune && npx --no-install tsc -p . ; }

bundle() { [ ! -f native/bundle.mjs ] || node native/bundle.mjs; }

# The addon under AddressSanitizer and UBSAN: the tests that reach every file of it, then channels and sockets between two
# processes. A report of theirs, in whichever process, is the verdict: bars on time and memory mean nothing here. Leaks are
# not looked for: Node.js itself exits with memory in use.
sanitized() ( # In a subshell: the library is preloaded into nothing else.
  library=$("${CC:-cc}" -print-file-name=libasan.so)
  [ -f "$library" ] || { echo "skipped: no libasan: this compiler comes without AddressSanitizer"; exit 0; }
  bash native/build.sh --asan || exit
  export LD_PRELOAD=$library BURROW_ADDON=$PWD/build/native-asan/burrow.node
  export ASAN_OPTIONS=detect_leaks=0:log_path=$PWD/$out/asan UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
  for each in transport/channel tree/host tree/upper cache/pool; do
    [ -f "dist/test/$each.test.js" ] || continue
    timeout 60 node "dist/test/$each.test.js" || echo "$each failed under sanitizers"
  done
  timeout 60 node dist/bench/run.js wait --quick || exit
  ! cat "$out"/asan.* 2>/dev/null
)

tests() {
  local list=$out/files status=0
  find dist/test -name '*.test.js' | sort >"$list"
  [ "$isLong" = 1 ] || { grep -v '\.long\.test\.js$' "$list" >"$list.short"; mv "$list.short" "$list"; }
  [ -s "$list" ] || { echo "no tests were built"; return 1; }
  # .taprc turns a plugin off, so tap makes its test class anew once after each install.
  if [ ! -e .tap/plugins ] || [ node_modules/.package-lock.json -nt .tap/plugins ]; then
    npx --no-install tap build && touch .tap/plugins || return
  fi
  # shellcheck disable=SC2046 # names of ours, without blanks
  timeout -k 10 $testSeconds npx --no-install tap --timeout=$fileSeconds --reporter=silent \
    --output-file="$out/tests.tap" $(cat "$list") || status=$?
  [ $status -ne 124 ] || echo "the tests took more than $testSeconds s"
  if [ $status -eq 1 ] && again; then
    status=0
    node dist/test/count.js "$out/tests.tap" "$out/again.tap" >"$out/tests.counts" || status=1
  else
    node dist/test/count.js "$out/tests.tap" >"$out/tests.counts" || status=1
  fi
  return $status
}

# Up to three files that failed beside all others run once more, one at a time, so that a slow or busy machine is told from a
# wrong program. What passed only then is shown as "flaky" and is a bug of the test or worse: it is to be mended.
again() {
  local files
  files=$(node dist/test/count.js --failed "$out/tests.tap") && [ -n "$files" ] && [ "$(wc -l <<<"$files")" -le 3 ] || return
  echo "once more, by themselves:" $files
  # shellcheck disable=SC2086 # names of ours, without blanks
  timeout -k 10 300 npx --no-install tap --timeout=$fileSeconds --jobs=1 --reporter=silent --output-file="$out/again.tap" $files
}

# Read whole before it runs: an edit meanwhile must not change a gate under way.
main() {
  step install bash native/ensure.sh || finish
  step system bash fixtures/ensure-system.sh
  step lint npx --no-install biome check . --max-diagnostics=40 --colors=off
  step native bash native/build.sh || finish
  step types types
  step bundle bundle
  step sanitized sanitized
  step tests tests
  finish
}
main
