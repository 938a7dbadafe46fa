#!/bin/bash
# summary: a PV and a PVH guest: create, store traffic, save, restore, destroy; stock clients; nothing left behind
# limit-seconds: 420
# memory-mib: 4096
# shellcheck source=lib/common.sh
. /payload/scenarios/lib/common.sh
parse_options "$@"

guest_memory_mib=160

main() {
  must 'store answers' start_store "$store"
  store_pid=$(cat /run/store.pid)
  must 'dom0 set up' start_dom0_services
  local guest
  for guest in pv pvh; do
    must "$guest: xl create" create_guest "$(guest_config $guest $guest $guest_memory_mib)"
  done
  item 'pv: up' guest_up pv
  item 'pvh: up' pvh_guest_up pvh /run/pvh.cfg
  item 'xl list: both' running_are Domain-0 pv pvh
  for guest in pv pvh; do
    item "$guest: its frontend's store traffic" store_traffic $guest
    item "$guest: beats" guest_beats $guest
  done
  stock_clients
  for guest in pv pvh; do
    item "$guest: xl save" save_guest $guest
    item "$guest: xl restore" restore_guest $guest
    item "$guest: alive after restore" guest_beats $guest
    item "$guest: same boot after restore" same_boot $guest
  done
  item 'xl list: both after restore' running_are Domain-0 pv pvh
  for guest in pv pvh; do
    item "$guest: xl destroy, nothing left" destroy_guest $guest
  done
  item 'xl list: dom0 alone' running_are Domain-0
  item 'no entry left in /vm and /libxl' no_vm_left
  item 'store daemon alive at the end' kill -0 "$store_pid"
  item 'dom0 kernel has no complaint' kernel_calm
  finish
}

# The guest wrote its boot id under its own path, read it back, and named it on its console.
store_traffic() {
  local value
  eventually 30 console_has "$1" GUEST-STORE- || { echo 'the guest says nothing of the store'; return 1; }
  console_has "$1" GUEST-STORE-OK
  value=$(guest_data "$1" guest-up)
  console_has "$1" "name $1, domid $(guest_domid "$1"), boot id $value"
  echo "data/guest-up = $value, as on the console"
}

save_guest() {
  guest_data "$1" guest-up >"/run/$1.boot"
  timeout 90 xl save "$1" "/tmp/$1.save"
  running_are Domain-0 "$([[ $1 == pv ]] && echo pvh || echo pv)"
}

restore_guest() {
  timeout 90 xl restore "/tmp/$1.save" 3>&-
  rm "/tmp/$1.save"
  running_are Domain-0 pv pvh
}

# A restored guest goes on where it was: its console has one GUEST-UP only.
same_boot() {
  local count
  count=$(grep -c GUEST-UP "$(console_of "$1")")
  echo "GUEST-UP $count times, boot id $(cat "/run/$1.boot")"
  ((count == 1))
}

stock_clients() {
  item 'xenstore-write, -read, -list, -exists, -chmod, -rm' basic_clients
  item 'xenstore-ls' listing
  item 'xenstore-watch gets an event' watch_event
  item 'xenstore-control check' control check
  item 'xenstore-control memreport' memory_report
  item 'xenstore-control quota' control quota
}

basic_clients() {
  xenstore-write /tool/lab/key 'a value' /tool/lab/other 2
  [[ $(xenstore-read /tool/lab/key) == 'a value' ]]
  [[ $(xenstore-list /tool/lab | sort | tr '\n' ' ') == 'key other ' ]]
  xenstore-chmod /tool/lab/key n0 r1
  [[ $(xenstore-ls -p /tool/lab) =~ key.*\(n0,r1\) ]]
  xenstore-rm /tool/lab/other
  if xenstore-exists /tool/lab/other; then echo 'still there after xenstore-rm'; return 1; fi
  xenstore-exists /tool/lab/key
  echo 'as expected'
}

listing() {
  local nodes=/tmp/nodes
  xenstore-ls -f >"$nodes"
  grep -q '^/local/domain/0/name = "Domain-0"' "$nodes"
  echo "$(wc -l <"$nodes") nodes"
  (($(wc -l <"$nodes") > 60))
}

watch_event() {
  local out=/tmp/watch.out
  # The first event is the registration's own; the second is ours.
  timeout 20 xenstore-watch -n 2 /tool/lab/watched >"$out" &
  eventually 10 test -s "$out"
  xenstore-write /tool/lab/watched 1
  wait $!
  tr '\n' ' ' <"$out"
  [[ $(wc -l <"$out") == 2 ]]
}

control() {
  only_with_control
  timeout 20 xenstore-control "$@"
}

memory_report() {
  only_with_control
  timeout 20 xenstore-control memreport /results/memreport.txt
  [[ -s /results/memreport.txt ]]
  echo "$(wc -l </results/memreport.txt) lines"
}

only_with_control() {
  [[ $store != oxenstored ]] || { echo 'oxenstored does not offer this command'; exit 77; }
}

no_vm_left() {
  local left
  left=$(xenstore-list /vm 2>/dev/null | grep -v 00000000-0000-0000-0000-000000000000 || true)
  left+=$(xenstore-list /libxl 2>/dev/null | grep -vx 0 || true)
  echo "left: ${left:-nothing}"
  [[ -z $left ]]
}

kernel_calm() {
  local lines
  lines=$(dmesg | grep -E 'BUG:|Oops|Call Trace|xenbus.*(fail|error|timeout)|hung_task|blocked for more' || true)
  echo "${lines:-no complaint}"
  [[ -z $lines ]]
}

main
