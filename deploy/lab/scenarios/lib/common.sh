# shellcheck shell=bash
# What the scenarios share. They run in dom0 as root; fd 3 is the serial port for events (see ../../host/init).
set -euo pipefail

run_dir=/run/xenstored
console_dir=/var/log/xen/console
store_pid_file=/run/xen/xenstored.pid
store_log=/var/log/xen/store.log
# shellcheck disable=SC2034 # used by the scenarios
lib=/payload/scenarios/lib
# shellcheck disable=SC2034 # used by the scenarios
store=xs_uk
store_pid=
store_flags=()
xs_uk_flags=()
failures=0
# Of `attempts`: what is added to names, whether the guest was lost, and how many had been broken before.
attempt=''
guest_lost=''
attempt_guest=''
broken_before=''
broken_detail="the emulator broke the guest: a triple fault, and its kernel had no complaint"

# ---------------------------------------------------------------- events

emit() {
  printf '%s\n' "$1" >&3
  printf '%s\n' "$1" >>/results/events
}

# A line for people who follow the run.
note() {
  emit "{\"event\":\"note\",\"text\":$(json_string "$*")}"
  echo "-- $*"
}

# figure NAME JSON: a measured value for the report.
figure() {
  emit "{\"event\":\"figure\",\"name\":$(json_string "$1"),\"value\":$2}"
}

# json_string TEXT: TEXT as a JSON string. Bash does it faster here than starting jq under emulation.
json_string() {
  local text=$1
  text=${text//\\/\\\\}
  text=${text//\"/\\\"}
  text=${text//$'\n'/\\n}
  text=${text//$'\t'/ }
  printf '"%s"' "${text//[[:cntrl:]]/}"
}

now_us() {
  echo "${EPOCHREALTIME/[.,]/}"
}

# seconds_of MICROSECONDS: as seconds with three digits.
seconds_of() {
  printf '%d.%03d' $(($1 / 1000000)) $(($1 / 1000 % 1000))
}

# item NAME COMMAND...: one named check. The command runs in a subshell that ends at its first failure; the last line
# that it prints is the detail. Exit status 77 means skipped. Call it as a plain command (see `step` in progress.sh).
item() {
  local name=$1$attempt start status detail out=/tmp/item.out
  shift
  [[ -z $guest_lost ]] || return 0
  echo "== $name"
  start=$(now_us)
  set +e
  (set -e; "$@") >"$out" 2>&1
  status=$?
  set -e
  cat "$out"
  detail=$(tail -n 1 "$out")
  report "$name" "$status" "$detail" $(($(now_us) - start))
}

# report NAME STATUS DETAIL MICROSECONDS
report() {
  local word=fail detail=$3
  case $2 in
    0) word=pass ;;
    77) word=skip ;;
    *) if lost_to_emulator; then word=skip detail=$broken_detail; else failures=$((failures + 1)); fi ;;
  esac
  emit "{\"event\":\"item\",\"name\":$(json_string "$1"),\"status\":\"$word\",\"detail\":$(json_string "$detail"),\"seconds\":$(seconds_of "$4")}"
}

# attempts COMMAND... NAME: items about the guest NAME. Under emulation a PVH guest dies now and then of a triple fault, often with
# the hypervisor's code in its registers; a kernel that goes wrong by itself complains first. What fails because of that does not
# count, the rest of the items is left out, and all begins anew with another guest. A guest that dies of anything else counts.
attempts() {
  local try
  attempt_guest=${!#}
  for try in {1..5}; do
    guest_lost='' attempt=''
    ((try == 1)) || attempt=" (attempt $try)"
    attempt_begins
    "$@"
    broken_before=''
    [[ -n $guest_lost ]] || break
    end_helpers
  done
  attempt=''
  if [[ -n $guest_lost ]]; then
    guest_lost=''
    item "$*: a guest that the emulator leaves alone" false
  fi
}

# What was broken before does not excuse what fails from now on.
attempt_begins() {
  broken_before=$(triple_faults) || broken_before=''
}

# Was the guest of this attempt lost?
lost_to_emulator() {
  if emulator_broke_since "$broken_before" && ! guest_domid "$attempt_guest" >/dev/null 2>&1; then guest_lost=1; fi
  [[ -n $guest_lost ]]
}

# emulator_broke_since COUNT: there are more triple faults now, and the guest's kernel had no complaint. Without a count: no.
emulator_broke_since() {
  local now
  [[ -n $1 ]] && now=$(triple_faults) && echo "$now triple faults, $1 before" && ((now > $1)) && no_complaint "$attempt_guest"
}

# host_item NAME COMMAND...: an item that does not depend on the guest, so nothing excuses it.
host_item() {
  local broken_before=''
  item "$@"
}

# A scenario with processes of its own beside a guest overrides this.
end_helpers() {
  :
}

# must NAME COMMAND...: an item without which the rest is pointless.
must() {
  local before=$failures
  item "$@"
  if ((failures > before)); then finish; fi
}

finish() {
  exit $((failures > 0))
}

# eventually SECONDS COMMAND...: tries until it succeeds.
eventually() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < end)) || return 1
    sleep 0.2
  done
}

# ---------------------------------------------------------------- the store

# engine_is ENGINE: what xs_uk keeps its log in. Everything is some twenty times slower here than on real hardware.
engine_is() {
  xs_uk_flags+=(--engine "$1")
  [[ $1 == etcd ]] || return 0
  xs_uk_flags+=(--etcd-heartbeat-ms 500 --etcd-election-ms 5000 --etcd-connect-timeout-ms 10000 --etcd-call-timeout-ms 10000
    --etcd-keep-alive-timeout-ms 20000 --etcd-status-interval-ms 60000 --etcd-poll-interval-ms 10000 --request-wait-ms 60000 --etcd-linger-ms 1000)
}

# start_store KIND: starts the daemon and waits until it answers.
start_store() {
  case $1 in
    xs_uk) set -- xs_uk -N --pid-file "$store_pid_file" "${xs_uk_flags[@]}" ;;
    xenstored) set -- xenstored -N --pid-file "$store_pid_file" ;;
    oxenstored) set -- oxenstored --no-fork --no-access-log --pid-file "$store_pid_file" ;;
    *) echo "unknown store $1"; return 1 ;;
  esac
  # A session of its own: the scenario's time limit must not end the store before the logs are gathered.
  setsid "$@" "${store_flags[@]}" 3>&- >>"$store_log" 2>&1 &
  store_pid=$!
  echo "$store_pid" >/run/store.pid
  eventually 60 store_answers || { echo "$1 does not answer: $(tail -n 1 "$store_log")"; return 1; }
}

store_answers() {
  [[ -S $run_dir/socket ]] && timeout 5 xenstore-read / >/dev/null 2>&1
}

# What a host does once its store is up; also after another store took over (no guest may run then).
start_dom0_services() {
  xen-init-dom0
  xenconsoled --log=guest --log-dir="$console_dir" --pid-file=/run/xen/xenconsoled.pid 3>&-
  [[ $(xenstore-read /local/domain/0/name) == Domain-0 ]]
}

stop_store() {
  local pid
  pid=$(cat /run/xen/xenconsoled.pid 2>/dev/null) && kill "$pid" && eventually 5 gone "$pid"
  pid=$(cat /run/store.pid)
  kill "$pid" || true
  eventually 10 gone "$pid" || { kill -9 "$pid" || true; }
  rm -f "$store_pid_file" "$run_dir"/socket "$run_dir"/socket_ro
}

gone() {
  ! kill -0 "$1" 2>/dev/null
}

# Prints the pid of the leading replica. The one place that knows how to find it.
leader_pid() {
  timeout 5 ppvmm --rundir "$run_dir" status -o json |
    jq -e 'first(.. | objects | select(.role? == "leader" and (.pid? // 0) > 1) | .pid)'
}

# ---------------------------------------------------------------- guests

# guest_config NAME TYPE MEMORY_MIB [KERNEL_ARGUMENTS [VIF]]: prints the path of a new configuration.
guest_config() {
  local file=/run/$1.cfg
  {
    printf 'name = "%s"\ntype = "%s"\nmemory = %d\nvcpus = 1\nvif = [%s]\n' "$1" "$2" "$3" "${5:+\"$5\"}"
    printf 'kernel = "/lab/vmlinux"\nramdisk = "/lab/guest.gz"\nextra = "console=hvc0 %s"\n' "${4:-}"
    # A guest that died is to stay dead, not to come back under another domid.
    printf 'on_reboot = "destroy"\non_crash = "destroy"\n'
    # A PVH guest dies of RDTSCP under emulation.
    [[ $2 != pvh ]] || echo 'cpuid = "host,rdtscp=0"'
  } >"$file"
  echo "$file"
}

create_guest() {
  timeout 120 xl create -q "$@" 3>&-
}

guest_domid() {
  timeout 30 xl domid "$1"
}

console_of() {
  echo "$console_dir/guest-$1.log"
}

console_has() {
  [[ -f $(console_of "$1") ]] && grep -qF "$2" "$(console_of "$1")"
}

# guest_data NAME KEY: a value that the guest wrote under its own path.
guest_data() {
  xenstore-read "/local/domain/$(guest_domid "$1")/data/$2"
}

guest_up() {
  eventually "${2:-90}" console_has "$1" GUEST-UP || { echo "no GUEST-UP on the console of $1"; return 1; }
  echo "GUEST-UP on the console of $1"
}

# Emulated SVM loses a PVH guest now and then to a triple fault while its kernel starts, whatever the store does. Such a
# guest, which Xen's log tells, is created again; the detail says how often.
pvh_guest_up() {
  local faults try
  for try in {1..6}; do
    faults=$(triple_faults)
    ((try == 1)) || create_guest "$2"
    eventually 120 up_or_gone "$1" || { echo "neither up nor gone: $1"; return 1; }
    if console_has "$1" GUEST-UP; then
      echo "GUEST-UP on the console of $1, created $try times"
      return 0
    fi
    # Create and first fault may come before we look for the first time.
    ((try == 1 && $(triple_faults) > 0 || $(triple_faults) > faults)) || { echo "$1 died, but of no triple fault"; return 1; }
  done
  echo "$1 was lost to triple faults $try times"
  return 1
}

# Fails if Xen's log cannot be read.
triple_faults() {
  local log
  log=$(timeout 20 xl dmesg) || return 1
  grep -c 'Triple fault' <<<"$log" || true
}

# no_complaint NAME: nothing on its console that a kernel says when it goes wrong.
no_complaint() {
  ! grep -qE 'BUG:|Oops|Call Trace|Kernel panic|double fault' "$(console_of "$1")"
}

up_or_gone() {
  console_has "$1" GUEST-UP || ! guest_domid "$1" >/dev/null 2>&1
}

# The guest's beat must be seen to go on, twice, within 60 s.
guest_beats() {
  local domid first
  domid=$(guest_domid "$1")
  eventually 60 xenstore-exists "/local/domain/$domid/data/beat" || { echo "$1 has no data/beat"; return 1; }
  first=$(xenstore-read "/local/domain/$domid/data/beat")
  eventually 60 beat_above "$domid" $((first + 1)) || { echo "the beat of $1 stays at $first"; return 1; }
  echo "beat of $1 went from $first to $(xenstore-read "/local/domain/$domid/data/beat")"
}

beat_above() {
  local beat
  beat=$(xenstore-read "/local/domain/$1/data/beat") && ((beat > $2))
}

# running_are NAME...: `xl list` shows exactly these domains.
running_are() {
  local seen wanted
  seen=$(timeout 30 xl list | awk 'NR > 1 {print $1}' | sort | tr '\n' ' ')
  wanted=$(printf '%s\n' "$@" | sort | tr '\n' ' ')
  echo "xl list: $seen"
  [[ $seen == "$wanted" ]]
}

destroy_guest() {
  local domid
  domid=$(guest_domid "$1")
  timeout 60 xl destroy "$1"
  eventually 20 domain_left "$domid" || { echo "left over: $(leftovers "$domid")"; return 1; }
  echo "domain $domid left nothing behind"
}

# What the store still holds of a domain that is gone.
leftovers() {
  local pattern="^/(local/domain|libxl)/$1( |/)|^/local/domain/0/backend/[a-z]+/$1( |/)|/local/domain/$1(/|\"|\$)"
  grep -m 3 -E "$pattern" <<<"$(timeout 30 xenstore-ls -f)" || true
}

domain_left() {
  [[ -z $(leftovers "$1") ]]
}

# ---------------------------------------------------------------- options

# Every scenario has --store; option_NAME=VALUE is set for the others. `run` has checked the names already.
# shellcheck disable=SC2034 # used by the scenarios
parse_options() {
  while (($#)); do
    case $1 in
      --store) store=$2 ;;
      --*) printf -v "option_$(tr - _ <<<"${1#--}")" '%s' "$2" ;;
    esac
    shift 2
  done
}
