#!/bin/sh
# Installs the Debian packages that Lightcone needs: the missing ones only, so that with all in place it touches neither
# the network nor the system. `sh setup.sh --dry-run` shows what it would do. make runs it before every target, and
# before the tests with --fuzz, for what the fuzzers need besides.
set -eu

# The one list: package, why.
packages='
g++                   the compiler (C++20 and OpenMP)
cmake                 the build
ninja-build           the build
make                  the front door
git                   the commit in the version, and in the report of each run
libfmt-dev            text formatting
libspdlog-dev         the log
nlohmann-json3-dev    JSON: results, safetensors headers
libtoml11-dev         TOML: the configs
libcli11-dev          the command line
zlib1g-dev            npz files
doctest-dev           the tests
clang-format-14       make format; pinned, since each version formats differently
gnuplot-nox           the plots of a run
fonts-dejavu-core     their letters
'
fuzz_packages='
clang-14              the fuzzers of the file readers
libclang-rt-14-dev    libFuzzer and the sanitizers for it
libomp-14-dev         OpenMP for it
'

dry_run=
for option; do
  case "$option" in
    --dry-run) dry_run=yes ;;
    --fuzz) packages="$packages${fuzz_packages#?}" ;;
    *) echo "usage: sh setup.sh [--dry-run] [--fuzz]    installs what Lightcone needs from Debian's packages:$packages
with --fuzz also:$fuzz_packages"
       case "$option" in -h | --help) exit 0 ;; *) exit 2 ;; esac ;;
  esac
done
fail() { printf 'setup.sh: %s\n' "$@" >&2; exit 1; }

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  fail "no apt-get here, and setup.sh knows Debian's packages only (Debian 12). Needed, by Debian's names:$packages" \
    "Install these by this system's own means, then build with: make SETUP=:"
fi

names=$(echo "$packages" | while read -r name why; do echo "$name"; done)
installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $names 2>/dev/null || true)
missing=
for name in $names; do
  case "
$installed
" in *"
installed $name
"*) ;; *) missing="$missing $name" ;; esac
done

if [ -z "$missing" ]; then
  if [ "$dry_run" ]; then echo "setup.sh: all packages are installed, nothing to do"; fi
  exit 0
fi

if [ "$(id -u)" = 0 ]; then sudo=; else sudo=sudo; fi
# A fresh machine may be running its own apt-get: wait for it. A dead network must not take minutes to say so.
apt="$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=2 -o Acquire::http::Timeout=20 -o Dpkg::Use-Pty=0"
install="$apt install -y --no-install-recommends$missing"
if [ "$dry_run" ]; then printf 'setup.sh: would run:\n  %s\n  %s\n' "$apt update" "$install"; exit 0; fi
by_hand="To do it by hand, as root: apt-get update && apt-get install$missing"
if [ "$sudo" ] && ! command -v sudo >/dev/null; then
  fail "missing packages:$missing" "installing them takes root, and there is no sudo here. $by_hand"
fi
echo "setup.sh: installing$missing"
$apt update || echo "setup.sh: apt-get update failed; trying with the package lists that are here" >&2
$install || fail "apt-get could not install:$missing" "Its messages above say why (no network? not Debian 12? no right to sudo?). $by_hand"
