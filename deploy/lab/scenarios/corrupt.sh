#!/bin/bash
# summary: bits flip in the leader's memory while guests are created; compared with a run without flips
# limit-seconds: 1200
# memory-mib: 4096
# option: --guests N         guests in each of the two passes (default 4, at most 12)
# option: --seed N           of nodes, parts and bits (default: random, and reported)
# option: --most-ms N        most time between two flips (default 800)
# shellcheck source=lib/common.sh
. /payload/scenarios/lib/common.sh
# shellcheck source=lib/passes.sh
. /payload/scenarios/lib/passes.sh
option_guests=4 option_seed=$RANDOM option_most_ms=800
parse_options "$@"

flips=/results/flips
stop_flipping=/run/stop-flipping
parts=(value perms digest generation name pointer sum)

main() {
  ((option_guests >= 1 && option_guests <= 12)) || { note 'bad --guests'; exit 1; }
  figure seed "$option_seed"
  store_flags=(--enable-injection)
  must 'store answers' start_store xs_uk
  must 'dom0 set up' start_dom0_services
  prepare_passes "$option_guests"
  pass reference
  start_flipper
  pass flipped
  stop_flipper
  item 'every damaged node is read again' read_all
  report_flips
  item 'both stores equal' same_dumps flipped
  finish
}

start_flipper() {
  rm -f "$stop_flipping"
  : >"$flips"
  RANDOM=$option_seed
  flipper 3>&- >>/results/flipper.log 2>&1 &
  flipper_pid=$!
}

# Flips a bit of a live node of the leader, one at a time: a node that is read right afterwards must be right.
flipper() {
  local path part
  set +e
  while [[ ! -e $stop_flipping ]]; do
    sleep "$(seconds_of $((RANDOM % option_most_ms * 1000)))"
    path=$(any_path)
    part=${parts[RANDOM % ${#parts[@]}]}
    if timeout 10 ppvmm --rundir "$run_dir" inject flip leader --path "$path" --part "$part" --bit $((RANDOM % 64)); then
      echo "$(now_us) $part $path" >>"$flips"
      timeout 10 xenstore-read "$path" >/dev/null || timeout 10 xenstore-exists "$path" || echo "gone meanwhile: $path"
    fi
  done
}

# A node as the toolstack and its guests use them, drawn from the whole store.
any_path() {
  local paths
  mapfile -t paths <<<"$(timeout 20 xenstore-ls -f / | sed 's/ = .*//')"
  echo "${paths[(RANDOM * 32768 + RANDOM) % ${#paths[@]}]}"
}

stop_flipper() {
  touch "$stop_flipping"
  wait "$flipper_pid" || true
}

# A dump reads every node and every list.
read_all() {
  timeout 60 xenstore-ls -f -p | wc -l
}

report_flips() {
  local events=/results/corruption.json
  timeout 20 ppvmm --rundir "$run_dir" events -o json | grep -E '"corruption_|"replica_' >"$events" || true
  figure flips "$(wc -l <"$flips")"
  figure detected "$(grep -c 'corruption_detected' "$events" || true)"
  figure mended_in_place "$(grep -c 'corruption_mended' "$events" || true)"
  figure replicas_rebuilt "$(grep -c 'replica_rebuilt' "$events" || true)"
  item 'bits were flipped' test "$(wc -l <"$flips")" -ge "$option_guests"
  item 'and damage was found' grep -q corruption_detected "$events"
}

main
