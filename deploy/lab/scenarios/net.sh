#!/bin/bash
# summary: guests' stock netfronts through net_uk to an emulated NIC while driver, shadow and the NIC die; then the kernel's netback
# limit-seconds: 2400
# memory-mib: 4096
# nics: 2
# option: --guests LIST      of pv and pvh, with a comma between (default pv,pvh)
# option: --seconds N        how long processes are killed while each guest works (default 40; 0: not at all)
# option: --driver-kill S    seconds between two kills of the driver (default 1)
# option: --shadow-kill S    seconds between two kills of the shadow (default 10)
# option: --iperf N          seconds of each iperf3 run without faults (default 8)
# option: --netback 0|1      1: the same work through the kernel's netback, and what its removal does (default 1)
# option: --nic OPTIONS      of the NIC in net_uk's words (default offload,rx=255,tx=255)
# shellcheck source=lib/common.sh
. /payload/scenarios/lib/common.sh
# shellcheck source=lib/net.sh
. /payload/scenarios/lib/net.sh
option_guests=pv,pvh option_seconds=40 option_driver_kill=1 option_shadow_kill=10 option_iperf=8 option_netback=1
option_nic=offload,rx=255,tx=255
# The guest was there, and how many the emulator had broken then.
present='' broken_at_creation=''
parse_options "$@"

main() {
  local guest guests
  IFS=, read -ra guests <<<"$option_guests"
  must 'store answers' start_store "$store"
  must 'dom0 set up' start_dom0_services
  must 'two NICs on a wire, the peer behind one of them' wire
  item 'vif-ppvmm: refuses an interface that nobody serves' script_refuses
  must 'net_uk serves' start_net_uk "packet:eth0,$option_nic"
  for guest in "${guests[@]}"; do through_net_uk "$guest"; done
  item 'net_uk: told to stop, stops' stop_net_uk
  if [[ $option_netback == 1 ]]; then
    must "the kernel's netback, and a bridge with the NIC" start_netback
    for guest in "${guests[@]}"; do through_netback "$guest"; done
    report_ratio "${guests[@]}"
  fi
  item 'xl list: dom0 alone' running_are Domain-0
  item 'dom0 kernel has no complaint' kernel_calm
  finish
}

# ---------------------------------------------------------------- net_uk

through_net_uk() {
  note "$1: through net_uk"
  guest_vif=script=vif-ppvmm guest_seconds=$option_seconds
  # The emulator breaks a PVH guest after some tens of seconds of work, see `attempts`.
  [[ $1 == pv ]] || guest_seconds=$((option_seconds / 2))
  attempts calm_through_net_uk "$1"
  ((option_seconds == 0)) || attempts work_under_kills "$1"
  attempts work_without_nic "$1"
  attempts end_of_net_uk_guest "$1"
}

calm_through_net_uk() {
  with_guest "$1" || return 0
  item "$1: both ends are Connected" is_connected "$(guest_domid "$1")"
  item "$1: the kernel's netback is not loaded" netback_is_not_loaded
  calm_work "$1" net_uk
}

# with_guest NAME: creates it, unless it is there. False if it could not be.
with_guest() {
  guest_domid "$1" >/dev/null 2>&1 || {
    # One that died between two phases did so of something: of what, is asked.
    [[ -z $present ]] || item "$1: still there" emulator_broke_since "$broken_at_creation"
    present=''
    item "$1: xl create with $guest_vif" create_net_guest "$1" "$guest_vif"
    item "$1: up, with its network" net_guest_up "$1"
    attempt_begins
    broken_at_creation=$broken_before
  }
  guest_domid "$1" >/dev/null && present=1
}

end_of_net_uk_guest() {
  with_guest "$1" || return 0
  item "$1: its kernel has no complaint" guest_calm "$1"
  item "$1: TCP of the guest" guest_tcp "$1"
  item "$1: xl destroy, nothing left" destroy_guest "$1"
  present=''
}

# What is done without faults, by either backend.
calm_work() {
  item "$1, $2: ping from the peer" ping_guest "$1" 5
  item "$1, $2: ping from the guest" ping_peer "$1"
  item "$1, $2: iperf3 to the guest" iperf "$1" "$2.to" "$option_iperf"
  item "$1, $2: iperf3 from the guest" iperf "$1" "$2.from" "$option_iperf" -R
}

# One long TCP connection and pings all the time, iperf3 in both directions one after the other.
work_under_kills() {
  local half=$((guest_seconds / 2)) domid
  with_guest "$1" || return 0
  domid=$(guest_domid "$1")
  item "$1: both states are watched under kills" start_state_watch "$domid"
  start_stream "$1" kills $((guest_seconds + 5)) 512
  start_ping "$1" "$guest_seconds"
  start_killing "$guest_seconds" "driver.0=$option_driver_kill" "shadow=$option_shadow_kill"
  item "$1: iperf3 to the guest, under kills" iperf "$1" kills.to "$half"
  item "$1: iperf3 from the guest, under kills" iperf "$1" kills.from "$half" -R
  host_item "$1: driver and shadow were killed and served again" killed_enough "$1"
  item "$1: a long TCP transfer, whole and without reset" stream_whole "$1" kills
  item "$1: no ping lost under kills" no_ping_lost "$1"
  item "$1: nobody wrote a state in the store under kills" states_unwritten "$domid"
}

# The kernel takes the NIC from under net_uk, and gives it back as another one.
work_without_nic() {
  local domid
  with_guest "$1" || return 0
  domid=$(guest_domid "$1")
  item "$1: both states are watched without the NIC" start_state_watch "$domid"
  start_stream "$1" unbound 25 512
  sleep 4
  host_item "$1: the NIC's kernel driver unbound for 3 s, bound again" unbind_and_bind 3
  host_item "$1: net_uk goes on with the new NIC" eventually 20 nic_serves_again
  item "$1: a TCP transfer across that, whole and without reset" stream_whole "$1" unbound
  item "$1: ping after it" ping_guest "$1" 5
  item "$1: nobody wrote a state in the store meanwhile" states_unwritten "$domid"
}

# ---------------------------------------------------------------- netback

through_netback() {
  note "$1: through the kernel's netback"
  guest_vif=bridge=br0
  attempts calm_through_netback "$1"
  attempts removal "$1"
  attempts end_of_netback_guest "$1"
}

calm_through_netback() {
  with_guest "$1" || return 0
  calm_work "$1" netback
}

end_of_netback_guest() {
  with_guest "$1" || return 0
  item "$1: xl destroy, nothing left" destroy_guest "$1"
  present=''
}

# What becomes of a TCP connection when the kernel's backend lets go of the interface and takes it again. (Its module cannot be
# unloaded while it has one.) Told, not judged: it is not ours.
removal() {
  local device vif
  with_guest "$1" || return 0
  device=vif-$(guest_domid "$1")-0
  vif=vif$(guest_domid "$1").0
  start_stream "$1" removed 40 512
  sleep 4
  item "$1: netback unbound under a TCP transfer" write_to /sys/bus/xen-backend/drivers/vif/unbind "$device"
  sleep 3
  item "$1: netback bound again" write_to /sys/bus/xen-backend/drivers/vif/bind "$device"
  sleep 5
  figure "${1}_netback_back_in_its_bridge" "$(in_bridge "$vif" && echo true || echo false)"
  figure "${1}_netback_ping_after_bind" "$(ping_guest "$1" 3 >/dev/null 2>&1 && echo true || echo false)"
  ip link set dev "$vif" master br0 up || true
  figure "${1}_netback_ping_after_bridging_by_hand" "$(ping_guest "$1" 3 >/dev/null 2>&1 && echo true || echo false)"
  stream_whole "$1" removed || true
}

write_to() {
  echo "$2" >"$1"
}

in_bridge() {
  [[ -e /sys/class/net/br0/brif/$1 ]]
}

report_ratio() {
  local guest way ours theirs
  for guest in "$@"; do
    for way in to from; do
      ours=$(iperf_mbits "$guest" "net_uk.$way") || continue
      theirs=$(iperf_mbits "$guest" "netback.$way") || continue
      figure "${guest}_ratio_$way" "$(jq -n "$ours / $theirs * 1000 | round / 1000")"
    done
  done
}

kernel_calm() {
  local lines
  lines=$(dmesg | grep -E 'BUG:|Oops|Call Trace|WARNING:|hung_task|blocked for more' || true)
  echo "${lines:-no complaint}"
  [[ -z $lines ]]
}

main
