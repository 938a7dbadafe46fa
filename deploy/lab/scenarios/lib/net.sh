# shellcheck shell=bash
# A wire between two NICs of dom0: net_uk (or a bridge) has eth0; eth1 is in the namespace "peer", which plays the rest of
# the network. Guests, and work for them.
# shellcheck disable=SC2154 # lib and console_dir are common.sh's

net_memory_mib=192
peer_address=10.77.0.1
declare -A guest_address=([pv]=10.77.0.2 [pvh]=10.77.0.3)
events=/results/net_uk.events
net_uk_input=/run/net_uk.input
killing_pid='' ping_pid=''
declare -A stream_pid=()

in_peer() {
  ip netns exec peer "$@"
}

wire() {
  local setting
  modprobe virtio_net
  eventually 10 test -e /sys/class/net/eth1
  # dom0 itself says nothing on this wire.
  for setting in all default; do echo 1 >"/proc/sys/net/ipv6/conf/$setting/disable_ipv6"; done
  ip netns add peer
  ip link set dev eth1 netns peer
  ip -n peer link set dev lo up
  ip -n peer addr add "$peer_address/24" dev eth1
  ip -n peer link set dev eth1 up
  ip link set dev eth0 up
  eventually 10 grep -q 1 /sys/class/net/eth0/carrier
  install -m 755 /payload/xen/vif-ppvmm /etc/xen/scripts/
  echo "eth0 $(cat /sys/class/net/eth0/address), peer has the other"
}

# ---------------------------------------------------------------- net_uk

start_net_uk() {
  mkfifo "$net_uk_input"
  # Open at both ends for as long as it lives: no end of the input.
  setsid net_uk keeper --nic "$1" -o json <>"$net_uk_input" 3>&- >"$events" 2>/results/net_uk.log &
  echo $! >/run/net_uk.pid
  eventually 30 all_ready || { tail -n 3 /results/net_uk.log "$events"; return 1; }
  echo "$1"
}

all_ready() {
  (($(grep -c '"part":"\(shadow\|driver.0\)","kind":"ready"' "$events") >= 2))
}

stop_net_uk() {
  local pid
  pid=$(cat /run/net_uk.pid)
  echo counts >"$net_uk_input"
  sleep 1
  kill "$pid"
  eventually 10 gone "$pid"
  ! pgrep -x net_uk
}

# nic_serves_again: since the NIC was unbound, a driver told that it serves.
nic_serves_again() {
  tail -n "+$(($(cat /run/unbound.line) + 1))" "$events" | grep -q '"part":"driver.0","kind":"ready"'
}

unbind_and_bind() {
  local device
  device=$(basename "$(readlink -f /sys/class/net/eth0/device)")
  wc -l <"$events" >/run/unbound.line
  echo "$device" >/sys/bus/virtio/drivers/virtio_net/unbind
  [[ ! -e /sys/class/net/eth0 ]]
  sleep "$1"
  echo "$device" >/sys/bus/virtio/drivers/virtio_net/bind
  eventually 5 test -e /sys/class/net/eth0
  echo "$device"
}

# ---------------------------------------------------------------- netback

start_netback() {
  modprobe xen-netback
  ip link add name br0 type bridge stp_state 0 forward_delay 0
  ip link set dev eth0 master br0 up
  ip link set dev br0 up
}

netback_is_not_loaded() {
  ! lsmod | grep -E 'xen.netback'
}

# ---------------------------------------------------------------- guests

# create_net_guest NAME VIF
create_net_guest() {
  local address=${guest_address[$1]} vif console
  vif=mac=00:16:3e:77:00:0${address##*.},$2
  guest_config "$1" "$1" "$net_memory_mib" "beat=4 net=$address/24,$peer_address" "$vif" >/dev/null
  console=$(console_of "$1")
  [[ ! -e $console ]] || mv "$console" "$console.until-$SECONDS-s"
  create_guest "/run/$1.cfg"
  echo "$vif"
}

net_guest_up() {
  if [[ $1 == pvh ]]; then pvh_guest_up pvh /run/pvh.cfg; else guest_up "$1"; fi
  eventually 60 console_has "$1" GUEST-NET || { echo "no GUEST-NET on the console of $1"; return 1; }
}

# As xl calls it, for a device that is not there.
script_refuses() {
  local path=backend/vif/99/0 error
  if XENBUS_PATH=$path /etc/xen/scripts/vif-ppvmm online type_if=vif; then
    echo 'the script found nothing wrong'
    return 1
  fi
  error=$(xenstore-read "$path/hotplug-error")
  XENBUS_PATH=$path /etc/xen/scripts/vif-ppvmm offline type_if=vif
  [[ -z $(xenstore-list "$path") ]]
  xenstore-rm backend/vif/99
  echo "$error"
  [[ $error == *'is net_uk running?'* ]]
}

backend_path() {
  echo "/local/domain/0/backend/vif/$1/0"
}

frontend_path() {
  echo "/local/domain/$1/device/vif/0"
}

is_connected() {
  eventually 20 both_are_connected "$1" || { xenstore-ls "$(backend_path "$1")" | tr '\n' ' '; return 1; }
  [[ $(xenstore-read "$(backend_path "$1")/hotplug-status") == connected ]]
  echo "queues offered $(xenstore-read "$(backend_path "$1")/multi-queue-max-queues")"
}

both_are_connected() {
  [[ $(xenstore-read "$(backend_path "$1")/state" "$(frontend_path "$1")/state" | tr '\n' ' ') == '4 4 ' ]]
}

# Whoever writes a state, even the same one, makes an event. The first two are the registrations' own.
start_state_watch() {
  xenstore-watch -n 1000 "$(backend_path "$1")/state" "$(frontend_path "$1")/state" >"/results/states.$1" 2>&1 3>&- &
  echo $! >/run/state-watch.pid
  eventually 10 watch_began "$1"
}

watch_began() {
  (($(wc -l <"/results/states.$1") >= 2))
}

states_unwritten() {
  local lines
  sleep 1
  kill "$(cat /run/state-watch.pid)"
  lines=$(wc -l <"/results/states.$1")
  echo "$((lines - 2)) writes"
  both_are_connected "$1" && ((lines == 2))
}

guest_calm() {
  local lines
  lines=$(grep -E 'BUG:|Oops|Call Trace|WARNING:|vif .*(fail|error|Disabled)|net eth0:' "$(console_of "$1")" || true)
  echo "${lines:-no complaint}"
  [[ -z $lines ]]
}

# What still works beside a guest that is gone.
end_helpers() {
  local pid
  for pid in "$killing_pid" "$ping_pid" "${stream_pid[@]}"; do
    [[ -z $pid ]] || kill "$pid" 2>/dev/null || true
  done
  kill "$(cat /run/state-watch.pid 2>/dev/null)" 2>/dev/null || true
  killing_pid='' ping_pid='' stream_pid=()
  # A process that was killed just now is being replaced.
  sleep 2
}

# ---------------------------------------------------------------- work

# ping_guest NAME N
ping_guest() {
  in_peer busybox ping -c "$2" -W 20 "${guest_address[$1]}" >/tmp/ping || { tail -n 2 /tmp/ping; return 1; }
  grep received /tmp/ping
  grep -q "$2 packets transmitted, $2 packets received" /tmp/ping
}

ping_peer() {
  in_peer busybox nc -w 60 "${guest_address[$1]}" 7002 </dev/null >/tmp/ping
  grep received /tmp/ping
  grep -q '5 packets transmitted, 5 packets received' /tmp/ping
}

# iperf NAME LABEL SECONDS [-R]: by iperf3's own count of what arrived.
iperf() {
  local file=/results/iperf.$1.$2.json
  in_peer timeout $(($3 + 40)) iperf3 -c "${guest_address[$1]}" -t "$3" -i 0 -J "${@:4}" >"$file" || {
    jq -r '.error // "iperf3 did not end"' "$file"
    return 1
  }
  figure "${1}_${2//./_}_mbit_s" "$(iperf_mbits "$1" "$2")"
  jq -r '.end | "\(.sum_received.bits_per_second / 1e5 | round / 10) Mbit/s, \(.sum_sent.retransmits // "?") retransmissions"' "$file"
}

iperf_mbits() {
  jq -e '.end.sum_received.bits_per_second / 1e4 | round / 100' "/results/iperf.$1.$2.json"
}

# start_stream NAME LABEL SECONDS KIB_PER_S: through the guest's echo service, both ways on one connection.
start_stream() {
  in_peer timeout $(($3 + 120)) "$lib/stream.py" "${guest_address[$1]}" --seconds "$3" --kib-per-s "$4" --seed "$RANDOM" \
    >"/results/stream.$1.$2.json" 2>"/results/stream.$1.$2.log" 3>&- &
  stream_pid[$2]=$!
}

# Waits for its end. Tells what came of it.
stream_whole() {
  local file=/results/stream.$1.$2.json
  eventually 180 gone "${stream_pid[$2]}"
  [[ -s $file ]] || { tail -n 1 "/results/stream.$1.$2.log"; return 1; }
  jq -r '"\(.received_bytes / 1048576 * 10 | round / 10) of \(.sent_bytes / 1048576 * 10 | round / 10) MiB came back in " +
    "\(.seconds) s, longest pause \(.longest_pause_s) s, \(.retransmissions) retransmissions, \(.error // "no error")"' "$file"
  figure "${1}_stream_$2" "$(stream_result "$1" "$2")"
  jq -e '.error == null and .sha256_sent == .sha256_received and .sent_bytes > 1048576' "$file" >/dev/null
}

stream_result() {
  jq -c '{sent_bytes, received_bytes, seconds, longest_pause_s, retransmissions, error}' "/results/stream.$1.$2.json"
}

start_ping() {
  in_peer busybox ping -c $(($2 * 2)) -i 0.5 -W 60 "${guest_address[$1]}" >"/results/ping.$1" 2>&1 3>&- &
  ping_pid=$!
}

no_ping_lost() {
  eventually 120 gone "$ping_pid"
  tail -n 2 "/results/ping.$1" | tr '\n' ' '
  grep -q ' 0% packet loss' "/results/ping.$1" && ! grep -q DUP "/results/ping.$1"
}

# start_killing SECONDS PART=INTERVAL...
start_killing() {
  local seconds=$1
  shift
  "$lib/kill-parts.py" "$events" --seconds "$seconds" "${@/#/--kill=}" >/results/kills.json 2>/results/kills.log 3>&- &
  killing_pid=$!
}

killed_enough() {
  eventually 60 gone "$killing_pid"
  cp /results/kills.json "/results/kills.$1.json"
  figure "${1}_kills" "$(cat /results/kills.json)"
  cat /results/kills.json
  jq -e '.all_serve and ."driver.0".kills >= 3 and .shadow.kills >= 1 and .surprises == []' /results/kills.json >/dev/null
}

# The guest's own counts since it booted.
guest_tcp() {
  local file=/results/tcp.$1
  in_peer busybox nc -w 60 "${guest_address[$1]}" 7001 </dev/null >"$file"
  figure "${1}_guest_tcp" "$(tcp_counts "$file")"
  tcp_counts "$file"
}

# tcp_counts FILE: some counters of /proc/net/snmp and netstat, whose lines come in pairs of names and values.
tcp_counts() {
  awk '$1 in names {split(names[$1], name); for (i = 2; i <= NF; i++) value[name[i]] = $i; delete names[$1]; next}
    {names[$1] = $0}
    END {printf "{\"out_segs\": %d, \"retrans_segs\": %d, \"timeouts\": %d, \"in_csum_errors\": %d, \"abort_on_timeout\": %d}\n",
      value["OutSegs"], value["RetransSegs"], value["TCPTimeouts"], value["InCsumErrors"], value["TCPAbortOnTimeout"]}' "$1"
}
