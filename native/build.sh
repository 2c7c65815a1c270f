#!/usr/bin/env bash
# Builds the addon, the launcher and the stub with the system's compiler into build/native/ (about 2 s).
# `native/build.sh --asan` builds the addon with AddressSanitizer and UBSAN into build/native-asan/.
set -euo pipefail
cd "$(dirname "$0")/.."
CC=${CC:-cc}
command -v "$CC" >/dev/null || { echo "burrow: no C compiler ($CC). On Debian: apt-get install gcc libc6-dev" >&2; exit 1; }
headers=node_modules/node-api-headers/include
[ -f "$headers/node_api.h" ] || { echo "burrow: $headers is missing. Run: npm ci" >&2; exit 1; }
flags=(-std=gnu11 -O2 -g -Wall -Wextra -Werror -fno-strict-aliasing -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64)
out=build/native
if [ "${1:-}" = --asan ]; then
  out=build/native-asan
  flags+=(-fsanitize=address,undefined -fno-omit-frame-pointer -O1)
fi
mkdir -p "$out"
# Build aside and rename: a running gofer keeps the image that it has mapped.
link() { # link NAME SOURCES… -- FLAGS…
  local name=$1 sources=(); shift
  while [ $# -gt 0 ] && [ "$1" != -- ]; do sources+=("$1"); shift; done; shift
  local target="$out/$name"
  if [ -f "$target" ] && [ -z "$(find "${sources[@]}" native/build.sh native/*/*.h -newer "$target" -print -quit)" ]; then return; fi
  "$CC" "${flags[@]}" "$@" -o "$target.new" "${sources[@]}" && mv "$target.new" "$target"
}
link burrow.node native/addon/*.c -- -shared -fPIC -pthread -I "$headers"
if [ "$out" = build/native ]; then
  if [ -f native/launcher/burrow-runsc.c ]; then link burrow-runsc native/launcher/*.c --; fi
  if [ -f native/stub/burrow-stub.c ]; then link burrow-stub native/stub/*.c --; fi
fi
