const SUFFIX_BYTES: Readonly<Record<string, number>> = {
  "": 1,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
};

/** Thousandths of a core of an admitted CPU quantity: `"2"` is 2000, `"500m"` is 500. Throws RangeError on any other text. */
export function cpuMillis(quantity: string): number {
  const match = /^(?:([0-9]{1,4}(?:\.[0-9]{1,3})?)|([0-9]{1,7})m)$/.exec(quantity);
  if (match === null) throw new RangeError(`not a CPU quantity: ${JSON.stringify(quantity)}`);
  const [, cores, millis] = match;
  // Rounding only undoes binary fractions: 1.005 * 1000 is 1004.9999999999999 for a computer.
  return cores === undefined ? Number(millis) : Math.round(Number(cores) * 1000);
}

/** Bytes of an admitted memory quantity: `"4Gi"` is 4294967296. Throws RangeError on any other text. */
export function memoryBytes(quantity: string): number {
  const match = /^([0-9]{1,15})(Ki|Mi|Gi|Ti|k|M|G|T)?$/.exec(quantity);
  const bytes = Number(match?.[1]) * (SUFFIX_BYTES[match?.[2] ?? ""] ?? Number.NaN);
  if (!Number.isSafeInteger(bytes)) throw new RangeError(`not a memory quantity: ${JSON.stringify(quantity)}`);
  return bytes;
}
