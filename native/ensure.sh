#!/usr/bin/env bash
# Owns: what a build needs: Node.js, the npm packages of the lockfile, a C compiler. Installs what is missing and can be
# installed, or says exactly what to install and fails. Safe to run again: it does nothing when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
  printf 'burrow: %s\n' "$1" >&2
  exit 1
}

[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || fail "Linux on x86-64 is needed; this is $(uname -s) on $(uname -m)"
command -v node >/dev/null || fail "Node.js 20 or later is missing: install it with its npm, e.g. from nodejs.org"
[ "$(node -p 'process.versions.node.split(".")[0]')" -ge 20 ] || fail "Node.js 20 or later is needed; this is $(node -v)"
command -v npm >/dev/null || fail "npm is missing: Debian has it as the package 'npm', Node.js's own archives bring it"

# npm writes node_modules/.package-lock.json when it is done, so a broken install counts as none. Our own stamp beside it
# holds the lock it was made from: time stamps change with every checkout. No install scripts: everything with native
# code comes prebuilt (fuse-native, lz4-napi, esbuild, biome), so npm has nothing to ask for.
stamp=node_modules/.burrow-lock
if [ ! -f node_modules/.package-lock.json ] || ! cmp -s package-lock.json "$stamp"; then
  # A tree that others installed into and that satisfies the lock is kept as it is.
  if [ -f node_modules/.package-lock.json ] && npm ls --silent >/dev/null 2>&1; then
    cp package-lock.json "$stamp"
  else
    echo "burrow: npm ci" >&2
    npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2 ||
      fail "npm ci failed; the reason stands above (it needs the npm registry once)"
    cp package-lock.json "$stamp"
  fi
fi

compiles() { # A compiler without libc's headers is of no use.
  command -v "${CC:-cc}" >/dev/null && printf '#include <linux/futex.h>\n#include <stdio.h>\n' |
    "${CC:-cc}" -E - >/dev/null 2>&1
}
if ! compiles; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "burrow: apt-get install gcc libc6-dev" >&2
    export DEBIAN_FRONTEND=noninteractive
    { apt-get -qq update && apt-get -qq install -y --no-install-recommends gcc libc6-dev; } >/dev/null ||
      fail "gcc can't be installed; do it by hand: apt-get install gcc libc6-dev"
  fi
  compiles || fail "a C compiler is missing: apt-get install gcc libc6-dev (as root)"
fi
