#!/bin/bash
# summary: guests are created while the store's leader is killed at random instants; compared with a run without kills
# limit-seconds: 1200
# memory-mib: 4096
# option: --guests N         guests in each of the two passes (default 10, at most 12)
# option: --seed N           of the random instants (default: random, and reported)
# option: --kills 0|1        0 leaves the killing out, for stores that have no leader (default 1)
# option: --least-ms N       least time between two kills (default 200)
# option: --most-ms N        most time between two kills (default 1500)
# shellcheck source=lib/common.sh
. /payload/scenarios/lib/common.sh
# shellcheck source=lib/passes.sh
. /payload/scenarios/lib/passes.sh
option_guests=10 option_seed=$RANDOM option_kills=1 option_least_ms=200 option_most_ms=1500
parse_options "$@"

kills=/results/kills
stop_killing=/run/stop-killing

main() {
  ((option_guests >= 1 && option_guests <= 12)) || { note 'bad --guests'; exit 1; }
  figure seed "$option_seed"
  must 'store answers' start_store "$store"
  store_pid=$(cat /run/store.pid)
  must 'dom0 set up' start_dom0_services
  prepare_passes "$option_guests"
  pass reference
  [[ $option_kills == 0 ]] || start_killer
  pass killed
  if [[ $option_kills != 0 ]]; then
    stop_killer
    report_kills
  fi
  item 'both stores equal' same_dumps killed
  item 'store daemon alive at the end' kill -0 "$store_pid"
  finish
}

# ---------------------------------------------------------------- the killer

start_killer() {
  rm -f "$stop_killing"
  : >"$kills"
  RANDOM=$option_seed
  killer 3>&- >>/results/killer.log 2>&1 &
  killer_pid=$!
}

# Kills the leader at random instants, each leader once. A failure to find one is logged and counted by report_kills.
killer() {
  local pid last='' pause_ms
  set +e
  while [[ ! -e $stop_killing ]]; do
    pause_ms=$((option_least_ms + (RANDOM * 32768 + RANDOM) % (option_most_ms - option_least_ms + 1)))
    sleep "$(seconds_of $((pause_ms * 1000)))"
    pid=$(leader_pid)
    if [[ $pid =~ ^[0-9]+$ && $pid != "$last" ]] && kill -9 "$pid"; then
      echo "$(now_us) $pid" >>"$kills"
      last=$pid
    else
      echo "$(now_us) no leader to kill: '$pid'"
    fi
  done
}

stop_killer() {
  touch "$stop_killing"
  wait "$killer_pid" || true
}

report_kills() {
  local total within
  total=$(wc -l <"$kills")
  within=$(kills_within_creates)
  figure kills "$total"
  figure kills_within_a_create "$within"
  figure killer_found_no_leader "$(grep -c 'no leader' /results/killer.log || true)"
  item 'kills fell into creations' test "$within" -ge "$option_guests"
}

kills_within_creates() {
  awk 'NR == FNR {start[NR] = $1; end[NR] = $2; n = NR; next}
    {for (i = 1; i <= n; i++) if ($1 >= start[i] && $1 <= end[i]) {hits++; break}}
    END {print hits + 0}' /results/creates.killed "$kills"
}

main
