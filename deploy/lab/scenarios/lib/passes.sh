# shellcheck shell=bash
# Passes over the same guests: created, seen at work, dumped, destroyed. A pass with faults must look like one without.
# shellcheck disable=SC2154 # console_dir and lib are common.sh's

# The least memory in which the guest's kernel and initramfs boot with room to spare; tried.
guest_memory_mib=128
names=()

# prepare_passes N: names the guests.
prepare_passes() {
  local i
  for ((i = 1; i <= $1; i++)); do names+=("g$i"); done
  # So that the first creation does not pay for reading the guest's kernel from the disk.
  cat /lab/vmlinux /lab/guest.gz >/dev/null
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

# same_dumps PASS: the store looked as in the reference pass.
same_dumps() {
  diff -u /results/store.reference "/results/store.$1" >/results/store.diff || {
    echo "$(grep -cE '^[-+]/' /results/store.diff) lines differ, first: $(grep -m 1 -E '^[-+]/' /results/store.diff)"
    return 1
  }
  echo "$(wc -l <"/results/store.$1") nodes each"
}
