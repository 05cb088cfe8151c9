import { CA_BUNDLE_FILE, CA_FILE } from "../ports/backend.ts";

/** Where the holder lets programs of the bottle reach the guard's proxy. */
const EGRESS_ADDRESS = "127.0.0.1:7001";
const LOOPBACK = "127.0.0.1,localhost,::1";

/** Variables by which programs in a bottle find its guard, show that they belong to it, and trust its certificates. */
export function guardEnv(token: string): Record<string, string> {
  const proxy = `http://bottle:${token}@${EGRESS_ADDRESS}`;
  return {
    HTTP_PROXY: proxy,
    HTTPS_PROXY: proxy,
    http_proxy: proxy,
    https_proxy: proxy,
    NO_PROXY: LOOPBACK,
    no_proxy: LOOPBACK,
    // Node leaves these variables alone unless it is told; and it adds to its own authorities what others replace theirs with.
    NODE_USE_ENV_PROXY: "1",
    NODE_EXTRA_CA_CERTS: CA_FILE,
    SSL_CERT_FILE: CA_BUNDLE_FILE,
    CURL_CA_BUNDLE: CA_BUNDLE_FILE,
    REQUESTS_CA_BUNDLE: CA_BUNDLE_FILE,
    GIT_SSL_CAINFO: CA_BUNDLE_FILE,
    PIP_CERT: CA_BUNDLE_FILE,
    NPM_CONFIG_CAFILE: CA_BUNDLE_FILE,
    npm_config_cafile: CA_BUNDLE_FILE,
    CARGO_HTTP_CAINFO: CA_BUNDLE_FILE,
    AWS_CA_BUNDLE: CA_BUNDLE_FILE,
    DENO_CERT: CA_BUNDLE_FILE,
  };
}
