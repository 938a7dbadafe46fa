#!/bin/bash
# summary: a guest's stock netfront through net_uk in a driver domain, whose processes are killed
# limit-seconds: 900
# memory-mib: 4096
# nics: 2
# option: --seconds N        how long processes in the driver domain are killed under work (default 30)
# option: --kill S           seconds between two kills there (default 2)
# option: --iperf N          seconds of each iperf3 run without faults (default 6)
# shellcheck source=lib/common.sh
. /payload/scenarios/lib/common.sh
# shellcheck source=lib/net.sh
. /payload/scenarios/lib/net.sh
option_seconds=30 option_kill=2 option_iperf=6
parse_options "$@"
domain_image=/run/net-domain.gz

# Guest - net_uk in netdom - netdom's own interface - net_uk in dom0 - NIC - wire - peer.
main() {
  must 'store answers' start_store "$store"
  must 'dom0 set up' start_dom0_services
  must 'two NICs on a wire, the peer behind one of them' wire
  must 'net_uk serves in dom0' start_net_uk packet:eth0,offload,rx=255,tx=255
  must 'the driver domain: its ramdisk from what dom0 has' make_image
  must 'the driver domain: xl create' create_domain
  must 'the driver domain: its interface is Connected' is_connected "$(guest_domid netdom)"
  item 'pv: xl create with backend=netdom' create_net_guest pv script=vif-ppvmm,backend=netdom
  item 'pv: up, with its network' net_guest_up pv
  item 'pv: both ends are Connected, the backend in the driver domain' is_connected_to_domain
  item 'pv: ping from the peer' ping_guest pv 5
  item 'pv: ping from the guest' ping_peer pv
  item 'pv: iperf3 to the guest' iperf pv domain.to "$option_iperf"
  item 'pv: iperf3 from the guest' iperf pv domain.from "$option_iperf" -R
  work_under_kills_there
  item 'pv: its kernel has no complaint' guest_calm pv
  item 'pv: xl destroy, nothing left in dom0' destroyed_at_once
  item 'pv: nothing left in the driver domain' eventually 10 nothing_served
  item 'the driver domain: xl destroy, nothing left' destroy_guest netdom
  item 'net_uk: told to stop, stops' stop_net_uk
  finish
}

make_image() {
  # Kills net_uk's driver and shadow there in turn, once it is told to.
  cat >/run/hook <<'H'
#!/bin/sh
killed=0 part=driver
while :; do
  sleep "$(xenstore-read data/kill 2>/dev/null || echo 1)"
  [ -n "$(xenstore-read data/kill 2>/dev/null)" ] || continue
  for directory in /proc/[0-9]*; do
    if tr '\0' ' ' <"$directory/cmdline" 2>/dev/null | grep -q "^/proc/self/exe $part "; then
      kill -9 "${directory#/proc/}" && killed=$((killed + 1))
    fi
  done
  if [ $part = driver ]; then part=shadow; else part=driver; fi
  xenstore-write data/killed $killed
done
H
  /payload/xen/make-net-domain --hook /run/hook --program xenstore-read --program xenstore-write "$domain_image"
}

create_domain() {
  local file=/run/netdom.cfg
  {
    printf 'name = "netdom"\ntype = "pv"\nmemory = 256\nvcpus = 1\ndriver_domain = 1\n'
    printf 'kernel = "/lab/vmlinux"\nramdisk = "%s"\nextra = "console=hvc0 nic=packet:eth0,offload,rx=255,tx=255"\n' "$domain_image"
    printf 'vif = ["mac=00:16:3e:77:00:09,script=vif-ppvmm"]\n'
  } >"$file"
  create_guest "$file"
  eventually 60 console_has netdom NET-DOMAIN
  eventually 30 domain_serves || { tail -n 3 "$(console_of netdom)"; return 1; }
}

domain_serves() {
  console_has netdom '"part":"shadow","kind":"ready"' && console_has netdom '"part":"driver.0","kind":"ready"'
}

domain_backends() {
  echo "/local/domain/$(guest_domid netdom)/backend/vif"
}

is_connected_to_domain() {
  local guest
  guest=$(guest_domid pv)
  eventually 20 states_are_connected "$guest"
  echo "backend $(xenstore-read "/local/domain/$guest/device/vif/0/backend")"
  [[ $(xenstore-read "/local/domain/$guest/device/vif/0/backend-id") == "$(guest_domid netdom)" ]]
}

states_are_connected() {
  [[ $(xenstore-read "$(domain_backends)/$1/0/state" "$(frontend_path "$1")/state" | tr '\n' ' ') == '4 4 ' ]]
}

work_under_kills_there() {
  local home
  home=/local/domain/$(guest_domid netdom)/data
  start_stream pv domain "$option_seconds" 512
  start_ping pv "$option_seconds"
  xenstore-write "$home/kill" "$option_kill"
  sleep "$option_seconds"
  xenstore-rm "$home/kill"
  item 'processes in the driver domain were killed' killed_there "$home"
  item 'pv: a long TCP transfer under kills, whole and without reset' stream_whole pv domain
  item 'pv: no ping lost under kills' no_ping_lost pv
  item 'pv: still Connected on both sides' states_are_connected "$(guest_domid pv)"
}

killed_there() {
  local killed
  killed=$(xenstore-read "$1/killed")
  echo "$killed kills"
  ((killed >= option_seconds / option_kill / 4))
}

# xl waits ten seconds for a backend that does not close, and goes on without it.
destroyed_at_once() {
  local began=$SECONDS
  destroy_guest pv
  ((SECONDS - began < 8))
}

nothing_served() {
  [[ -z $(xenstore-list "$(domain_backends)" 2>/dev/null) ]]
}

main
