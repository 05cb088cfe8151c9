import type { Socket } from "node:net";
import {
  connect as tlsConnect,
  createSecureContext,
  rootCertificates,
  type SecureContext,
  type TLSSocket,
} from "node:tls";
import { authorityOf, type Destination } from "../../../controller/policy/destination.ts";
import type { CompiledRule } from "../../../controller/policy/matcher.ts";
import { CONNECT_MS_MAX, type Dialer } from "./dial.ts";

/** Where a request goes, and by which rule: connections are never shared between rules, because each opens addresses of its own. */
export interface UpstreamTarget {
  destination: Destination;
  protocol: "HTTPS" | "HTTP";
  rule: CompiledRule;
}

/** A connection that could not be made: by which rule of the guard, and why in words that hold nothing of the request. */
export class UpstreamError extends Error {
  readonly rule: "address-refused" | "resolve-failed" | "upstream-failed";

  constructor(rule: UpstreamError["rule"], reason: string, cause?: unknown) {
    super(reason, { cause });
    this.name = "UpstreamError";
    this.rule = rule;
  }
}

/** Makes one connection: resolved, decided, dialled and, for HTTPS, its certificate verified. Throws an UpstreamError. */
export type Establish = (target: UpstreamTarget, signal?: AbortSignal) => Promise<{ socket: Socket; address: string }>;

/** `ca`: authorities in PEM that are believed beside the public ones. */
export function createEstablish({ dialer, ca }: { dialer: Dialer; ca: readonly string[] }): Establish {
  const context = trust(ca);
  return async ({ destination, protocol, rule }, signal) => {
    const deadline = AbortSignal.timeout(CONNECT_MS_MAX);
    const ended = signal === undefined ? deadline : AbortSignal.any([signal, deadline]);
    const dialled = await dialer.dial(destination, rule, ended);
    if (!dialled.ok) throw new UpstreamError(dialled.rule, dialled.reason);
    const plain = await established(dialled.connect(), { destination, event: "connect", signal: ended });
    const address = plain.remoteAddress ?? dialled.address.text;
    if (protocol === "HTTP") return { socket: plain, address };
    const options = { destination, event: "secureConnect", signal: ended } as const;
    return { socket: await established(secure(plain, destination, context), options), address };
  };
}

/** Made once: to read all public authorities for each connection takes longer than the handshake. */
function trust(ca: readonly string[]): SecureContext {
  const authorities = ca.length === 0 ? {} : { ca: [...rootCertificates, ...ca] };
  return createSecureContext({ ...authorities, minVersion: "TLSv1.2" });
}

/** The certificate must be for the host that was decided on, whatever the request says. Addresses have no server name (RFC 6066). */
function secure(socket: Socket, destination: Destination, secureContext: SecureContext): TLSSocket {
  const serverName = destination.address === undefined ? { servername: destination.host } : {};
  return tlsConnect({
    socket,
    host: destination.host,
    ...serverName,
    secureContext,
    rejectUnauthorized: true,
    ALPNProtocols: ["http/1.1"],
  });
}

interface Establishing {
  destination: Destination;
  event: "connect" | "secureConnect";
  signal: AbortSignal;
}

async function established<T extends Socket>(socket: T, { destination, event, signal }: Establishing): Promise<T> {
  const stop = () =>
    socket.destroy(new UpstreamError("upstream-failed", `${authorityOf(destination)} did not answer in time`));
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once("error", reject);
      socket.once("close", () => reject(new Error("closed")));
      socket.once(event, resolve);
      signal.addEventListener("abort", stop, { once: true });
      if (signal.aborted) stop();
    });
    return socket;
  } catch (error) {
    socket.destroy();
    throw failed(destination, error);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

/** Codes of certificates that are not believed, as OpenSSL and Node name them. */
const CERTIFICATE_CODE = /CERT|SIGNATURE|ISSUER|DEPTH|HOSTNAME|CRL|TRUST/;

/** What is told of an error on the way to a host: a code, never the text of a library, which may quote a header. */
export function failed(destination: Destination, error: unknown): UpstreamError {
  if (error instanceof UpstreamError) return error;
  const code = codeOf(error);
  const what = CERTIFICATE_CODE.test(code) ? "its certificate is not valid" : "no connection could be made";
  return new UpstreamError("upstream-failed", `${authorityOf(destination)}: ${what} (${code})`, error);
}

/** Of several addresses that were tried, the error of the last one says it. */
function codeOf(error: unknown): string {
  const last: unknown = error instanceof AggregateError ? error.errors.at(-1) : error;
  if (!(last instanceof Error)) return "unknown error";
  return "code" in last && typeof last.code === "string" ? last.code : last.name;
}
