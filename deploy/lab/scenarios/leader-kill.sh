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
option_guests=10 option_seed=$RANDOM option_kills=1 option_least_ms=200 option_most_ms=1500
parse_options "$@"

# The least memory in which the guest's kernel and initramfs boot with room to spare; tried.
guest_memory_mib=128
kills=/results/kills
stop_killing=/run/stop-killing
names=()

main() {
  ((option_guests >= 1 && option_guests <= 12)) || { note 'bad --guests'; exit 1; }
  figure seed "$option_seed"
  must 'store answers' start_store "$store"
  store_pid=$(cat /run/store.pid)
  must 'dom0 set up' start_dom0_services
  local i
  for ((i = 1; i <= option_guests; i++)); do names+=("g$i"); done

  # So that the first creation does not pay for reading the guest's kernel from the disk.
  cat /lab/vmlinux /lab/guest.gz >/dev/null

  pass reference
  [[ $option_kills == 0 ]] || start_killer
  pass killed
  if [[ $option_kills != 0 ]]; then
    stop_killer
    report_kills
  fi
  item 'both stores equal' same_dumps
  item 'store daemon alive at the end' kill -0 "$store_pid"
  finish
}

# One pass: create all, see all up and beating, dump the store, destroy all. The killer runs through all of the second one.
pass() {
  local name
  note "pass: $1"
  for name in "${names[@]}"; do timed_create "$1" "$name"; done
  item "$1: all up" all_up
  item "$1: xl list" running_are Domain-0 "${names[@]}"
  item "$1: store traffic of all guests" all_beat
  item "$1: store dumped" dump "$1"
  for name in "${names[@]}"; do item "$1: $name destroyed, nothing left" destroy_guest "$name"; done
  rm -f "$console_dir"/guest-*.log
  figure "${1}_create_s" "$(median "/results/creates.$1")"
}

timed_create() {
  local start end
  start=$(now_us)
  item "$1: $2 created at the first try" create_guest "$(guest_config "$2" pv "$guest_memory_mib" beat=4)"
  end=$(now_us)
  echo "$start $end" >>"/results/creates.$1"
}

# Median of the durations in a file of "START END" in microseconds, in seconds.
median() {
  awk '{print $2 - $1}' "$1" | sort -n | awk '{v[NR] = $1} END {printf "%.3f", (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2e6}'
}

all_up() {
  local name
  for name in "${names[@]}"; do
    guest_up "$name" 300
    eventually 60 console_has "$name" GUEST-STORE-OK || { echo "the store traffic of $name is wrong"; return 1; }
  done
  echo "${#names[@]} guests up"
}

all_beat() {
  local name
  for name in "${names[@]}"; do guest_beats "$name"; done
}

dump() {
  # Not piped: the exit status of the dump counts.
  timeout 60 xenstore-ls -f -p >"/results/store.$1.raw"
  python3 "$lib/normalise.py" "${names[@]}" <"/results/store.$1.raw" >"/results/store.$1"
  echo "$(wc -l <"/results/store.$1") nodes"
  (($(wc -l <"/results/store.$1") > 30 * ${#names[@]}))
}

same_dumps() {
  diff -u /results/store.reference /results/store.killed >/results/store.diff || {
    echo "$(grep -cE '^[-+]/' /results/store.diff) lines differ, first: $(grep -m 1 -E '^[-+]/' /results/store.diff)"
    return 1
  }
  echo "$(wc -l </results/store.killed) nodes each"
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
