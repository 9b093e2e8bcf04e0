# What the three job scripts share; sourced by them. The site's set-up comes from cluster.slurm.setup.
set -u
read -r HOLDFAST_BEGAN _ </proc/uptime # the job is paid for from here on
export HOLDFAST_BEGAN
PAUSED=75
signalled=""
child=""

# Slurm sends USR1 to this shell before the time limit (--signal=B:USR1@...), before a preemption only where slurm.conf
# has SlurmctldParameters=preempt_send_user_signal; and TERM, KillWait before KILL, when the job is cancelled or
# preempted. The work is told; what it was doing is saved, and it ends.
told() { # signal to pass on
    signalled="$signalled $1"
    [ -z "$child" ] || kill -s "$2" "$child" 2>/dev/null || true
}

# The site's lines, one after the other, here and in no function, where `declare` would be lost with it. They may use
# variables that are not set. A notice that comes meanwhile is kept for the work.
trap 'told USR1 USR1' USR1
trap 'told TERM TERM' TERM
IFS=$'\x1e' read -r -d '' -a holdfast_lines <<<"${HOLDFAST_SETUP:-}"
set +u
for holdfast_line in "${holdfast_lines[@]}"; do
    eval "$holdfast_line" || {
        echo "holdfast: cluster.slurm.setup failed with $?: $holdfast_line" >&2
        exit 2
    }
done
set -u

# run SIGNAL COMMAND...: run the work in the background, so that this shell hears signals, and wait until it has ended.
run() {
    local on_notice=$1 code
    shift
    trap 'told USR1 '"$on_notice" USR1
    trap 'told TERM TERM' TERM
    "$@" &
    child=$!
    case "$signalled" in # came before the child was known
    *USR1*) kill -s "$on_notice" "$child" ;;
    *TERM*) kill -s TERM "$child" ;;
    esac
    while :; do
        wait "$child"
        code=$?
        kill -0 "$child" 2>/dev/null || break # a signal ends `wait` before the work has ended
    done
    return "$code"
}

# again CODE: start this job anew where it was told to make room (not where it was cancelled) and has work left.
again() {
    case "$signalled" in *USR1*) ;; *) exit "$1" ;; esac
    [ "$1" -ne 0 ] || exit 0
    if [ "${SLURM_RESTART_COUNT:-0}" -ge "${HOLDFAST_REQUEUES:-0}" ]; then
        echo "holdfast: told to make room after ${SLURM_RESTART_COUNT:-0} requeues; left as it is" >&2
        exit "$1"
    fi
    scontrol requeue "$SLURM_JOB_ID"
    exit "$1"
}
