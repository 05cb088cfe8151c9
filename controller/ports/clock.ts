/** Time as the loop sees it: milliseconds since the Unix epoch. Tests pass their own. */
export interface Clock {
  now(): number;
}
