#!/bin/bash
# summary: time and requests of `xl create` with two stores, alternating within one boot
# limit-seconds: 1200
# memory-mib: 4096
# option: --rounds N         rounds; in each both stores serve, in alternating order (default 5)
# option: --creates N        timed creations of each store in a round (default 3)
# option: --engine ENGINE    of xs_uk: embedded or etcd (default embedded)
# option: --against STORE    the store to compare with (default oxenstored)
# shellcheck source=lib/common.sh
. /payload/scenarios/lib/common.sh
option_rounds=5 option_creates=3 option_engine=embedded option_against=oxenstored
parse_options "$@"
engine_is "$option_engine"

# The least in which the builder of a PV guest can place the kernel.
guest_memory_mib=128
times=/results/times

# Guests stay paused: what is timed is the toolstack and the store, not the guest's boot beside them.
main() {
  local round order
  for ((round = 1; round <= option_rounds; round++)); do
    order=("$store" "$option_against")
    ((round % 2)) || order=("$option_against" "$store")
    serve "$round" "${order[0]}"
    serve "$round" "${order[1]}"
  done
  report_figures
  finish
}

# The dom0 kernel's connection outlives the daemon: its ring and port stay, a new daemon goes on at the ring's indices.
# The kernel's watches are lost with the old daemon, which nothing here needs.
serve() {
  local i
  must "round $1: $2 answers" start_store "$2"
  must "round $1: $2, dom0 set up" start_dom0_services
  item "round $1: $2, dom0 kernel's ring answers" ring_answers
  # The first creation after a change warms caches and is not counted.
  item "round $1: $2, warm-up" create_and_destroy
  item "round $1: $2, $option_creates timed creations" timed_creations "$2"
  ((option_rounds > $1)) || item "$2: requests of a creation" count_requests "$2"
  must "round $1: $2 stopped" stop_store
}

# Goes through /dev/xen/xenbus, that is, the kernel's ring, and not through the socket.
ring_answers() {
  XENSTORED_PATH=/dev/xen/xenbus timeout 10 xenstore-read /local/domain/0/name
}

timed_creations() {
  local i
  for ((i = 0; i < option_creates; i++)); do create_and_destroy "$1"; done
  tail -n "$option_creates" "$times.$1" | awk '{printf "%.3f s  ", $1 / 1e6}'
}

# create_and_destroy [STORE]: with STORE, notes the time of the creation.
create_and_destroy() {
  local config start end
  config=$(guest_config probe pv "$guest_memory_mib")
  start=$(now_us)
  create_guest -p "$config"
  end=$(now_us)
  timeout 60 xl destroy probe
  [[ -z ${1:-} ]] || echo $((end - start)) >>"$times.$1"
}

# Counted in a creation of its own, because tracing slows it: what xl puts on its connections to the store. With -e xl does
# not stay behind to wait for the guest's end, which strace would wait for too.
count_requests() {
  local config count
  config=$(guest_config probe pv "$guest_memory_mib")
  rm -f /tmp/strace.*
  timeout 120 strace -ff -xx -s 4200 -e trace=connect,close,write,sendto -o /tmp/strace xl create -q -e -p "$config" 3>&-
  timeout 60 xl destroy probe
  count=$(python3 "$lib/count-requests.py" /tmp/strace.*)
  tar -czf "/results/strace.$1.tar.gz" /tmp/strace.*
  echo "$count" >"/results/requests.$1"
  echo "$count"
  (($(jq .requests "/results/requests.$1") > 50))
}

report_figures() {
  local one
  for one in "$store" "$option_against"; do
    [[ -s $times.$one && -s /results/requests.$one ]] || { note "no figures of $one"; return; }
    figure "${one}_create_s" "$(summary "$one")"
    figure "${one}_requests" "$(cat "/results/requests.$one")"
  done
  figure ratio_of_medians "$(ratio median)"
  figure ratio_of_least "$(ratio least)"
  item 'both stores asked for as much' same_requests
}

ratio() {
  jq -n "$(summary "$store" | jq ".$1") / $(summary "$option_against" | jq ".$1") * 10000 | round / 10000"
}

summary() {
  sort -n "$times.$1" | jq -s '{n: length, median: ((.[(length - 1) / 2 | floor] + .[length / 2 | floor]) / 2e6),
    least: (.[0] / 1e6), most: (.[-1] / 1e6)}' | tr -d '\n'
}

# The same toolstack does the same to both, so far as neither makes it try again.
same_requests() {
  local ours theirs
  [[ -s /results/requests.$store && -s /results/requests.$option_against ]]
  ours=$(jq .requests "/results/requests.$store")
  theirs=$(jq .requests "/results/requests.$option_against")
  echo "$store $ours, $option_against $theirs"
  ((ours <= theirs + theirs / 20))
}

main
