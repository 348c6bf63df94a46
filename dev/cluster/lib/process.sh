# shellcheck shell=bash
# The cluster's processes. $RUN/pid/NAME holds "PID BORN COMMAND": BORN, the start time in clock ticks since boot, tells
# the process from a later one that was given its number; COMMAND is a hash of what it was started with.

born() { # PID: nothing when there is no such process, or only its remains
  local stat
  { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 0
  # The second field is the program's name and may hold anything; what follows the last ")" is plain.
  # shellcheck disable=SC2086
  set -- ${stat##*) }
  case $1 in Z | X) ;; *) echo "${20}" ;; esac
}

running() { # NAME
  local pid start
  [ -f "$RUN/pid/$1" ] && read -r pid start _ <"$RUN/pid/$1" && [ -n "$start" ] && [ "$(born "$pid")" = "$start" ]
}

pid_of() { cut -d' ' -f1 "$RUN/pid/$1"; }
command_of() { cut -d' ' -f3 "$RUN/pid/$1"; }

# start NAME [FILE...] -- COMMAND...: run COMMAND in the namespace, unless it runs already just so. FILEs are what it
# reads when it starts: when one of them changed it is started again.
start() {
  local name=$1 files=() pid wanted fd
  shift
  while [ "$1" != -- ]; do files+=("$1"); shift; done
  shift
  wanted=$({ printf '%s\n' "$@"; [ ${#files[@]} -eq 0 ] || cat "${files[@]}"; } | sha256sum | cut -c1-16)
  if running "$name"; then
    [ "$(command_of "$name")" != "$wanted" ] || return 0
    say "$name is started again: its command line or configuration changed"
    stop "$name"
  fi
  [ ! -f "$RUN/log/$name" ] || mv "$RUN/log/$name" "$RUN/log/$name.old"
  (
    # Whoever called may wait for the end of a pipe, or of this script's lock: no file of theirs goes along.
    for fd in /proc/"$BASHPID"/fd/*; do
      fd=${fd##*/}
      [ "$fd" -le 2 ] || exec {fd}>&-
    done
    # nsenter and not "ip netns exec": that one mounts a new /sys, without the cgroups the kubelet needs.
    # A shell makes its background jobs deaf to SIGINT, which every process of every pod would inherit.
    # The environment is not the caller's: who runs "up" must not matter, and a proxy there would catch calls in here.
    exec setsid env -i --default-signal PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
      nsenter --net="/run/netns/$NAMESPACE" "$@"
  ) >"$RUN/log/$name" 2>&1 </dev/null &
  pid=$!
  echo "$pid $(born $pid) $wanted" >"$RUN/pid/$name"
}

# stop NAME...: ask each to end, insist after 10 s.
stop() {
  local name pid
  for name; do
    if running "$name"; then
      pid=$(pid_of "$name")
      kill -TERM "$pid" 2>/dev/null || true
      gone "$name" 100 || { kill -KILL "$pid" 2>/dev/null || true; gone "$name" 100 || die "$name (pid $pid) does not end"; }
    fi
    rm -f "$RUN/pid/$name"
  done
}

gone() { # NAME TENTHS-OF-A-SECOND
  local i
  for ((i = 0; i < $2; i++)); do running "$1" || return 0; sleep 0.1; done
  return 1
}

# wait_for WHAT SECONDS COMMAND...: until COMMAND succeeds. A component that ends meanwhile ends the wait.
wait_for() {
  local what=$1 tries=$(($2 * 5))
  shift 2
  for ((; tries > 0; tries--)); do
    if "$@" >/dev/null 2>&1; then return; fi
    all_running
    sleep 0.2
  done
  die "timed out waiting for $what: see the files in $RUN/log"
}

# all_running: every component that was started still runs.
all_running() {
  local file name
  for file in "$RUN"/pid/*; do
    name=${file##*/}
    [ ! -f "$file" ] || running "$name" || die "$name ended: $(tail -n1 "$RUN/log/$name" 2>/dev/null | cut -c1-300) (all of it in $RUN/log/$name)"
  done
}

# tidy_pids: forget components that ended, so that all_running speaks of what this run has started; end components that
# no file knows, because a run was interrupted before it wrote one, or somebody removed the state.
tidy_pids() {
  local file pid
  for file in "$RUN"/pid/*; do running "${file##*/}" || rm -f "$file"; done
  for pid in $(pids_in_namespace); do
    grep -q "^$pid " "$RUN"/pid/* 2>/dev/null && continue
    case $(readlink "/proc/$pid/exe" || true) in
      "$BIN"/*) ;;
      */containerd) tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF " --config $RUN/" || continue ;;
      *) continue ;;   # a shim, a pod in the host's network, or a person looking around
    esac
    kill -KILL "$pid" 2>/dev/null || true
  done
}

# put FILE: write FILE from stdin, only when that changes it: kube-proxy ends when its configuration is written, even
# with what it held before.
put() {
  cat >"$1.new"
  if cmp -s "$1.new" "$1"; then rm "$1.new"; else mv "$1.new" "$1"; fi
}
