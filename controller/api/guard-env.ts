/**
 * Variables that lead an agent's programs to its guard and let them trust it, in capitals. The controller sets them; a template that set one would
 * cut its agent off, or point it to where nothing answers. Both spellings of each are taken.
 */
export const GUARD_ENV_NAMES = [
  "HTTP_PROXY",
  "HTTPS_PROXY",
  "ALL_PROXY",
  "NO_PROXY",
  "NODE_USE_ENV_PROXY",
  "NODE_EXTRA_CA_CERTS",
  "SSL_CERT_FILE",
  "CURL_CA_BUNDLE",
  "REQUESTS_CA_BUNDLE",
  "GIT_SSL_CAINFO",
  "PIP_CERT",
  "NPM_CONFIG_CAFILE",
  "CARGO_HTTP_CAINFO",
  "AWS_CA_BUNDLE",
  "DENO_CERT",
] as const;

/** For a CEL rule: whether the variable named by this expression is one of them. */
export function isGuardEnv(name: string): string {
  return `${name}.upperAscii() in [${GUARD_ENV_NAMES.map((each) => `'${each}'`).join(", ")}]`;
}
