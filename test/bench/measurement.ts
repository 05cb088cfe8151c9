/** One comparison in the same run: `ratio` is ours divided by the peer's. */
export interface Measurement {
  name: string;
  ours: number;
  peer: number;
  ratio: number;
  target: string;
  /** Absent: a figure for people, without a target. */
  met?: boolean;
}

/** What a ratio, or a value itself, must reach. */
export type Target = { atLeast: number } | { atMost: number };

/** Both sides of one comparison, by round: the two values of a round met the same load. */
export interface Rounds {
  ours: readonly number[];
  peer: readonly number[];
}

/** Compares by the median of the ratios of each round, so that a machine that slows down halfway slows both sides. */
export function measured(name: string, runs: Rounds, target: Target): Measurement {
  const [ours, peer] = [median(runs.ours), median(runs.peer)];
  const ratio = median(runs.ours.map((value, round) => value / (runs.peer[round] ?? Number.NaN)));
  return { name, ours, peer, ratio, ...judged(ratio, target, "x") };
}

/** Holds a value against a fixed limit. Where nothing is comparable the limit stands in the peer's place. */
export function limited(
  name: string,
  runs: { ours: readonly number[]; peer?: readonly number[] },
  limit: { atMost: number; unit: string },
): Measurement {
  const ours = median(runs.ours);
  const peer = runs.peer === undefined ? limit.atMost : median(runs.peer);
  return { name, ours, peer, ratio: ours / peer, ...judged(ours, limit, ` ${limit.unit}`) };
}

/** Shows a figure beside the peer's, if there is one, and asks nothing of it. */
export function reported(name: string, runs: { ours: readonly number[]; peer?: readonly number[] }): Measurement {
  const [ours, peer] = [median(runs.ours), median(runs.peer ?? [])];
  return { name, ours, peer, ratio: ours / peer, target: "-" };
}

export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

function judged(value: number, target: Target, unit: string): Pick<Measurement, "target" | "met"> {
  if ("atLeast" in target) return { target: `>= ${target.atLeast}${unit}`, met: value >= target.atLeast };
  return { target: `<= ${target.atMost}${unit}`, met: value <= target.atMost };
}
