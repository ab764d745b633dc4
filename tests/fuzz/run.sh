#!/bin/sh
# Builds the fuzzers with clang and runs each of them on so many inputs, the same ones every time:
#   tests/fuzz/run.sh [runs [target ...]]        toml, which is slow, gets a tenth of them
# Where clang and its sanitizers are not installed it says so and ends with 77, which ctest shows as skipped.
set -eu
cd "$(dirname "$0")/../.."
runs=${1-50000}
[ $# -lt 2 ] && set -- "$runs" safetensors npy npz toml overrides
shift
build=build-fuzz

clang=$(command -v clang++-14 || true)
if [ -z "$clang" ] || [ ! -e "$($clang -print-file-name=lib/linux/libclang_rt.fuzzer-x86_64.a)" ]; then
  echo "fuzz: left out, no clang++-14 with libFuzzer here; sh setup.sh --fuzz installs it"
  exit 77
fi
[ -f $build/build.ninja ] || cmake --preset fuzz >/dev/null
log=$(ninja -C $build) || { echo "$log"; exit 1; }

mkdir -p $build/findings
for target in "$@"; do
  # Small real files to start from. What the fuzzer adds to them goes, so that the next run is the same.
  seeds=$build/seeds/$target
  rm -rf $seeds
  mkdir -p $seeds
  case $target in
    toml) find configs tests/fuzz/seeds/toml -name '*.toml' -size -2k ;;
    overrides) find tests/fuzz/seeds/overrides -type f ;;
    *) find tests/golden/formats tests/fuzz/seeds -name "*.$target" -size -5k ;;
  esac | while read -r file; do cp "$file" "$seeds/$(echo "$file" | tr / _)"; done
  [ -d tests/fuzz/regressions/$target ] && cp tests/fuzz/regressions/$target/* $seeds
  longest=4096
  n=$runs
  case $target in
    npy) longest=1024 ;;
    toml) longest=256 n=$((runs / 10)) ;;
    overrides) longest=512 ;;
  esac
  # libFuzzer's weighing of inputs takes two fifths of the time of a toml run.
  more=
  [ "$n" -gt 1000000 ] && more=-entropic=0
  scratch=$(mktemp -d)
  $build/tests/fuzz/fuzz_$target -seed=1 $more -runs="$n" -max_len=$longest -timeout=60 -malloc_limit_mb=1024 -rss_limit_mb=3072 \
    -dict=tests/fuzz/dictionaries/$target.dict -artifact_prefix=$build/findings/$target- -print_final_stats=1 "$scratch" $seeds \
    >$build/findings/$target.log 2>&1 || status=$?
  rm -rf "$scratch"
  if [ "${status-0}" != 0 ]; then
    tail -n 60 $build/findings/$target.log
    echo "fuzz: $target failed; the input is in $build/findings/, and tests/fuzz/README.md says what to do with it"
    exit 1
  fi
  awk -v target=$target '/ cov: /{cov=$0} /number_of_executed_units/{n=$2}
    END {match(cov, /cov: [0-9]+/); printf "fuzz: %-12s %d inputs, %s edges, no finding\n", target, n, substr(cov, RSTART + 5, RLENGTH - 5)}' \
    $build/findings/$target.log
done
