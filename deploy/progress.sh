# shellcheck shell=bash
# Progress for people on stderr: one line for each step, with the seconds that it took. Sourced by the scripts.

step_log=${step_log:-/dev/null}
step_pid=

# step TEXT COMMAND...: runs the command, its output goes to $step_log; shows that log's tail when the command fails.
# Call it as a plain command: inside `if`, `!`, `&&` or `||` bash would ignore failures within a function it runs.
step() {
  local text=$1 start=$SECONDS status=0
  shift
  "$@" >>"$step_log" 2>&1 </dev/null &
  step_pid=$!
  if [[ -t 2 ]]; then
    while kill -0 "$step_pid" 2>/dev/null; do
      printf '\r\e[K   …  %4d s  %s' $((SECONDS - start)) "$text" >&2
      sleep 0.5
    done
    printf '\r\e[K' >&2
  else
    printf '   ..          %s\n' "$text" >&2
  fi
  wait "$step_pid" || status=$?
  step_pid=
  if ((status == 0)); then
    printf '   ok  %4d s  %s\n' $((SECONDS - start)) "$text" >&2
    return 0
  fi
  printf ' FAIL  %4d s  %s\n' $((SECONDS - start)) "$text" >&2
  [[ -f $step_log ]] && tail -n 20 "$step_log" | sed 's/^/       | /' >&2
  return "$status"
}

# Ends the step that is under way: background commands of a script do not see Ctrl-C. For the caller's EXIT trap.
step_abort() {
  [[ -z $step_pid ]] || kill "$step_pid" 2>/dev/null || true
}
