import { TRANSCRIPT_BYTES_MAX } from "../../controller/ports/journal.ts";

/**
 * Output is kept in segments: `output.0`, `output.1`, … A segment is full at half a transcript; two full ones and the one being written are kept.
 * So the last TRANSCRIPT_BYTES_MAX bytes are always there, and never more than twice as many: a copy of 64 blocks may overshoot a segment.
 */
const BLOCK_BYTES = 32 * 1024;
const BLOCKS_PER_COPY = 64;
const SEGMENT_BYTES = TRANSCRIPT_BYTES_MAX / 2;
export const SEGMENTS_MAX = 3;

/**
 * Takes the unit for this process, once and for ever: `ln` fails where the name exists, and the name appears with its content. Two starts,
 * also one before and one after a crash, thus never run a turn twice. The content is pid, start time, boot and time of day.
 */
const CLAIM = `
cd "$1" || exit 70
hint=$2 filter=$3
shift 3
umask 077
ulimit -c 0
read -r boot < /proc/sys/kernel/random/boot_id || exit 70
read -r stat < /proc/$$/stat || exit 70
read -r _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ start _ <<END
\${stat##*) }
END
printf '%s %s %s %s\\n' $$ "$start" "$boot" "$(date +%s%3N)" > ".claim.$$" || exit 70
ln ".claim.$$" started 2>/dev/null || exit 0
: > "$hint"
`;

/**
 * Copies its input to the segments as it arrives. \`dd\` writes each block at once; a copy that wrote nothing saw the end, or a full disk: the rest
 * is then thrown away, because an agent must not die of its own log.
 */
const KEEP_OUTPUT = `
keep() {
  n=0 size=0
  while :; do
    dd bs=${BLOCK_BYTES} count=${BLOCKS_PER_COPY} >> "output.$n" 2>/dev/null
    now=$(wc -c < "output.$n")
    [ "$now" -gt "$size" ] || break
    size=$now
    if [ "$now" -ge ${SEGMENT_BYTES} ]; then
      n=$((n + 1)) size=0
      rm -f "output.$((n - ${SEGMENTS_MAX}))"
    fi
  done
  cat > /dev/null
}
`;

/**
 * Stands over one unit for as long as it runs, in a session of its own, so that no end of the controller reaches it. What it runs dies with
 * it. bubblewrap ends with 1 where it could not make the sandbox; the line with the program's exit code is then missing, and 125 is recorded.
 * Arguments: unit directory, hint file, system call filter, command line.
 */
export const STAND_OVER = `${CLAIM}${KEEP_OUTPUT}
exec > /dev/null
mkfifo pipe || exit 70
keep < pipe &
"$@" < /dev/null > pipe 2>&1 3> status 5< "$filter"
code=$?
wait $!
[ "$code" -ne 1 ] || grep -q exit-code status || code=125
printf '%s %s\\n' "$code" "$(date +%s%3N)" > exit.new && mv exit.new exit
: > "$hint"
`;

/** Becomes the command itself, with the caller's streams: what a session is. Same arguments. */
export const BECOME = `${CLAIM}
exec "$@" 3> status 5< "$filter"
`;

/**
 * For root: the sandbox is made by an ordinary user, to whom the state directory is closed. In a mount namespace that nobody else sees, the
 * bottle's directory is shown at /tmp, with Node mounted into it. Arguments: directory, Node, command line.
 */
export const STAGE = `
mount --bind "$2" "$1/node" && mount --rbind "$1" /tmp || exit 71
shift 2
cd / && exec "$@"
`;

/** Refuses to go on in another network namespace than the holder's: its process may have ended, and its number been given away. */
export const CHECK_NAMESPACE = `
[ "$(readlink /proc/self/ns/net)" = "$1" ] || { echo "the bottle's holder is gone" >&2; exit 125; }
shift
exec "$@"
`;

/**
 * Runs the program in the sandbox: 127 where it does not exist, 126 where it cannot be executed, as every shell does. The limit of processes counts
 * those of the sandbox's own user namespace (Linux 5.14 and later). dash says -p for -u; a limit that is lower already cannot be raised and holds too.
 */
export const RUN_PROGRAM = `
ulimit -u "$1" 2>/dev/null || ulimit -p "$1" 2>/dev/null ||
  [ "$(ulimit -Hu 2>/dev/null || ulimit -Hp)" -le "$1" ] || { echo "cannot limit the number of processes" >&2; exit 125; }
shift
exec "$@"
`;
