/** Last looks at what a shape found: the whole text, where the token begins and where it ends. */
type Confirm = (text: string, start: number, end: number) => boolean;

/** How far a last look goes beyond the token. */
const AROUND_MAX = 160;
/** Further than a header with a comment, behind which the bytes of a key stand. */
const KEY_FILE_MAX = 240;

/** The bytes of a key stand behind the line that names it. Programs that read keys name the line alone. */
export const hasKeyBytes: Confirm = (text, _start, end) => hasRun(text, end, { min: 40, max: AROUND_MAX });

export const hasPuttyKeyBytes: Confirm = (text, _start, end) => hasRun(text, end, { min: 40, max: KEY_FILE_MAX });

/** The id of an access key opens nothing; with the key beside it, it does. Forty hex digits are a commit. */
export const hasAwsSecret: Confirm = (text, _start, end) =>
  hasRun(text, end, { min: 40, exact: true, max: AROUND_MAX });

/** Words that many programs make have this shape; a random token of some length has a digit, and letters of both cases. */
export const isMixed: Confirm = (text, start, end) => {
  const token = text.slice(start, end);
  return /[0-9]/.test(token) && /[a-z]/.test(token) && /[A-Z]/.test(token);
};

export const hasDigit: Confirm = (text, start, end) => /[0-9]/.test(text.slice(start, end));

/** For shapes that other things have too, such as names of caches: a finding only where the issuer is named nearby. */
export function isNear(issuer: string): Confirm {
  return (text, start, end) =>
    text
      .slice(Math.max(0, start - AROUND_MAX), end + AROUND_MAX)
      .toLowerCase()
      .includes(issuer);
}

/** In every example, so they are nobody's. Templates such as `${PASSWORD}` and `{password}` are no passwords either. */
const EXAMPLE_PASSWORD = /pass|pwd|secret|example|change|[${}<>*]|%s|xxx/i;
/** Databases of the machine itself, and the names that are reserved for documentation and tests (RFC 2606, RFC 6761). */
const EXAMPLE_HOST =
  /^(localhost|127\.|0\.0\.0\.0|\[::1\]|host\.docker\.internal|host[:/]|hostname|([a-z0-9-]+\.)*(example(\.(com|net|org))?|test|invalid|localhost)([:/?"'\s]|$))/i;
/** Passwords that programs make change often between kinds of characters; those that people make up for an example do not. */
const CHANGES_MIN = 4;
const PASSWORD_DISTINCT_MIN = 7;

/** `end` is behind the first character of the host. */
export const isUrlPassword: Confirm = (text, start, end) => {
  const userinfo = text.slice(text.indexOf("://", start) + 3, end - 2);
  const password = userinfo.slice(userinfo.indexOf(":") + 1);
  if (!/[0-9]/.test(password) || !/[A-Za-z]/.test(password) || EXAMPLE_PASSWORD.test(password)) return false;
  if (changesOf(password) < CHANGES_MIN || new Set(password).size < PASSWORD_DISTINCT_MIN) return false;
  return !EXAMPLE_HOST.test(text.slice(end - 1, end + AROUND_MAX));
};

function changesOf(text: string): number {
  const kinds = [...text].map((char) => (/[0-9]/.test(char) ? 0 : /[a-z]/.test(char) ? 1 : /[A-Z]/.test(char) ? 2 : 3));
  return kinds.filter((kind, at) => at > 0 && kind !== kinds[at - 1]).length;
}

const BACKSLASH = 0x5c;
/** By code: 1 for letters, digits, `+` and `/`. */
const BASE64 = Uint8Array.from({ length: 256 }, (_, code) => (/[A-Za-z0-9+/]/.test(String.fromCharCode(code)) ? 1 : 0));

interface Run {
  min: number;
  /** No longer than `min`, and not of hex digits alone. */
  exact?: boolean;
  /** How far it is looked for. */
  max: number;
}

/**
 * Whether a run of base64 characters of a fitting length stands soon after `from`; an escape such as `\n` is no part of a run. Where a run of
 * `min` would end it is looked for backwards, so most of the text is never looked at.
 */
function hasRun(text: string, from: number, { min, exact = false, max }: Run): boolean {
  const limit = Math.min(text.length, from + max);
  let last = from + min - 1;
  while (last < limit) {
    let before = last;
    while (before >= from && isBase64(text, before)) before -= 1;
    if (last - before < min) {
      last = before + min;
      continue;
    }
    const first = before + (before >= from && text.charCodeAt(before) === BACKSLASH ? 2 : 1);
    let end = last + 1;
    while (end < text.length && end - first <= min && isBase64(text, end)) end += 1;
    if (exact ? end - first === min && !isHex(text, first, end) : end - first >= min) return true;
    last = end + min;
  }
  return false;
}

function isBase64(text: string, at: number): boolean {
  return BASE64[text.charCodeAt(at)] === 1;
}

function isHex(text: string, start: number, end: number): boolean {
  return /^[0-9a-f]*$/.test(text.slice(start, end));
}
