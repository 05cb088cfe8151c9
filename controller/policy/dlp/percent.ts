const PERCENT = 0x25;
/** By code: 1 + the value of a hex digit; 0 for everything else. */
const DIGITS = Uint8Array.from({ length: 256 }, (_, code) => {
  const char = String.fromCharCode(code);
  return /[0-9A-Fa-f]/.test(char) ? 1 + Number.parseInt(char, 16) : 0;
});

/** Decodes a body that arrives in pieces, from a little before its first percent-encoded byte on. */
export interface PercentDecoder {
  push(chunk: Uint8Array): Buffer[];
  /** Call once, after the last piece. */
  end(): Buffer[];
  /** Bytes that were given and may be the beginning of an encoded one. */
  heldBytes(): number;
}

/** `before`: of how many bytes in front of the first encoded one it gives back as they are, for most bodies have none and need no second look. */
export function createPercentDecoder(before: number): PercentDecoder {
  // Until the first encoded byte: the last bytes. Afterwards: the beginning of an encoded byte.
  let kept: Buffer = Buffer.alloc(0);
  let active = false;

  function activate(text: Buffer, keptBytes: number): Buffer | undefined {
    const first = firstEncoded(text, Math.max(0, keptBytes - 2));
    if (first === -1) {
      kept = Buffer.from(text.subarray(Math.max(0, text.length - before)));
      return undefined;
    }
    active = true;
    return text.subarray(Math.max(0, first - before));
  }

  return {
    push(chunk) {
      const keptBytes = kept.length;
      const text = joined(kept, chunk);
      const rest = active ? text : activate(text, keptBytes);
      if (rest === undefined) return [];
      const end = rest.length - unfinished(rest);
      kept = Buffer.from(rest.subarray(end));
      return [percentDecoded(rest.subarray(0, end))];
    },
    end() {
      const rest = kept;
      kept = Buffer.alloc(0);
      return active && rest.length > 0 ? [rest] : [];
    },
    heldBytes: () => (active ? kept.length : unfinished(kept)),
  };
}

/** What cannot be decoded stays as it is: a lone percent sign hides nothing. */
export function percentDecoded(bytes: Buffer): Buffer {
  const decoded = Buffer.allocUnsafe(bytes.length);
  let length = 0;
  for (let at = 0; at < bytes.length;) {
    const next = firstEncoded(bytes, at);
    const end = next === -1 ? bytes.length : next;
    length += bytes.copy(decoded, length, at, end);
    if (next === -1) break;
    decoded[length] = ((DIGITS[bytes[next + 1] ?? 0] ?? 1) - 1) * 16 + (DIGITS[bytes[next + 2] ?? 0] ?? 1) - 1;
    length += 1;
    at = next + 3;
  }
  return decoded.subarray(0, length);
}

function firstEncoded(bytes: Buffer, from: number): number {
  for (let at = bytes.indexOf(PERCENT, from); at !== -1; at = bytes.indexOf(PERCENT, at + 1)) {
    if (DIGITS[bytes[at + 1] ?? 0] !== 0 && DIGITS[bytes[at + 2] ?? 0] !== 0) return at;
  }
  return -1;
}

/** How many bytes at the end may be the beginning of an encoded one. */
function unfinished(bytes: Buffer): number {
  const [last, second] = [bytes[bytes.length - 1], bytes[bytes.length - 2]];
  if (last === PERCENT) return 1;
  return second === PERCENT && DIGITS[last ?? 0] !== 0 ? 2 : 0;
}

function joined(kept: Buffer, chunk: Uint8Array): Buffer {
  if (kept.length === 0) return Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
  return Buffer.concat([kept, chunk]);
}
