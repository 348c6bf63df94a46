# shellcheck shell=bash
# What people see. Progress goes to stderr, so that stdout is only ever an answer.
say() { printf '%6.1fs  %s\n' "$(since_start)" "$*" >&2; }
since_start() { local now=${EPOCHREALTIME/[.,]/}; printf '%d.%d' $(((now - STARTED) / 1000000)) $(((now - STARTED) / 100000 % 10)); }
STARTED=${EPOCHREALTIME/[.,]/}

# refuse: this machine, or this call, is not one we can work with; nothing was changed.
refuse() { echo "cluster: $*" >&2; exit 2; }

# die: something that should have worked did not.
die() { echo "cluster: $*" >&2; exit 1; }
