/** How long an agent may take to end itself before it is killed. Claude Code and Codex write their session within about a second. */
export const STOP_GRACE_MS = 10_000;

/** After a refusal that only a person can mend (an image that does not exist) the launch is tried again this much later. */
export const INVALID_RETRY_MS = 60_000;

/** A bottle whose probe failed stays down this long before the next try. */
export const PROBE_RETRY_MS = 60_000;

/** How often a turn may break down (host died, guard lost) and go on before it counts as Failed. */
export const BREAKDOWNS_MAX = 3;

/** What belongs to nobody is left alone this long: its owner may just be starting. */
export const ORPHAN_GRACE_MS = 120_000;

/** How soon to look again at a backend that could not be observed. */
export const UNSEEN_RETRY_MS = 5_000;

/** How long a copy into or out of a frozen bottle may take before its helper counts as left behind. */
export const COPY_MS_MAX = 3_600_000;

/** How long a run that was killed by nobody we know waits for its verdict. An idle Docker Engine 20.10 ends its containers within a second. */
export const KILL_SETTLE_MS = 5_000;

/** How old what a guard reports of itself may be: it is asked by a poll that waits, and a poll may fail once. */
export const HEARD_LAG_MS = 45_000;
