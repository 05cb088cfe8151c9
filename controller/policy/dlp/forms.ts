/** One way in which a secret may be written, cut to a length that a stream can hold back. */
export interface Form {
  bytes: Buffer;
  /** Programs break this form into lines (`base64`, `xxd`), so a line break inside it does not hide it. */
  wrapped: boolean;
}

/** Shorter values stand in ordinary text by chance; see `scanText` for what is done with them. */
export const FORM_LENGTH_MIN = 8;
/** No header holds more, so no more of a secret is ever injected; what lies beyond is not looked for. */
const SECRET_LENGTH_MAX = 16 * 1024;
/** Longer forms are cut into pieces of this length, each of which is looked for: a stream is held back no longer than one of them. */
export const PIECE_BYTES_MAX = 256;

/**
 * Every form in which a secret is looked for: as it is, percent-encoded (also twice, with lower-case digits, as a form field), escaped
 * as JSON (also twice, also in ASCII alone), in hex, in base64 and base64url. Base64 shifts with what stands before the secret, hence
 * three alignments, without the characters at the edges that hold bits of the neighbours. A value without its surrounding white space
 * is what leaves a guard, so that is what is looked for. Empty for a value that is too short.
 */
export function formsOf(value: string): Form[] {
  const secret = value.trim().slice(0, SECRET_LENGTH_MAX);
  if (secret.length < FORM_LENGTH_MIN) return [];
  const bytes = Buffer.from(secret);
  const plain = new Set([secret, ...percentForms(secret), ...jsonForms(secret)]);
  const wrapped = new Set([bytes.toString("hex"), bytes.toString("hex").toUpperCase(), ...base64Forms(bytes)]);
  return [
    ...[...plain].flatMap((text) => pieces(Buffer.from(text), false)),
    ...[...wrapped].flatMap((text) => pieces(Buffer.from(text), true)),
  ];
}

function percentForms(secret: string): string[] {
  // Half a surrogate pair cannot be encoded; UTF-8, in which a secret leaves, has a replacement for it.
  const once = encodeURIComponent(Buffer.from(secret).toString());
  const strict = once.replace(/[!'()*~]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);
  const field = strict.replaceAll("%20", "+");
  const encodings = [once, strict, field];
  const lower = encodings.map((text) => text.replace(/%[0-9A-F]{2}/g, (digits) => digits.toLowerCase()));
  return [...encodings, ...lower].flatMap((text) => [text, text.replaceAll("%", "%25")]);
}

function jsonForms(secret: string): string[] {
  const once = inJson(secret);
  const ascii = once.replace(/[^ -~]/g, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);
  const slashes = once.replaceAll("/", "\\/");
  // Escapers for HTML pages write these as code points, Go's encoder among them.
  const html = once.replace(/[<>&]/g, (char) => `\\u00${char.charCodeAt(0).toString(16)}`);
  return [once, ascii, slashes, html].flatMap((text) => [text, inJson(text)]);
}

function inJson(text: string): string {
  return JSON.stringify(text).slice(1, -1);
}

function base64Forms(bytes: Buffer): string[] {
  return [0, 1, 2].flatMap((before) => {
    const text = Buffer.concat([Buffer.alloc(before), bytes]).toString("base64");
    const first = Math.ceil((8 * before) / 6);
    const end = Math.floor((8 * (before + bytes.length)) / 6);
    const own = text.slice(first, end);
    return [own, own.replaceAll("+", "-").replaceAll("/", "_")];
  });
}

/** All bytes of a long form lie in some piece: the last one overlaps the one before, so that none is short. */
function pieces(bytes: Buffer, wrapped: boolean): Form[] {
  if (bytes.length <= PIECE_BYTES_MAX) return [{ bytes, wrapped }];
  const starts = Array.from(
    { length: Math.floor(bytes.length / PIECE_BYTES_MAX) },
    (_, index) => index * PIECE_BYTES_MAX,
  );
  const all = new Set([...starts, bytes.length - PIECE_BYTES_MAX]);
  return [...all].map((start) => ({ bytes: bytes.subarray(start, start + PIECE_BYTES_MAX), wrapped }));
}
