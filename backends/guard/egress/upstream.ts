import type { Socket } from "node:net";
import type { Readable } from "node:stream";
import type { TLSSocket } from "node:tls";
import { Pool, type Dispatcher } from "undici";
import { authorityOf, type Destination } from "../../../controller/policy/destination.ts";
import type { CompiledRule } from "../../../controller/policy/matcher.ts";
import type { Dialer } from "./dial.ts";
import { createEstablish, failed, UpstreamError, type Establish, type UpstreamTarget } from "./establish.ts";

export { UpstreamError, type UpstreamTarget };

export interface UpstreamRequest extends UpstreamTarget {
  method: string;
  /** Path and query. */
  path: string;
  /** Names and values in turn. A Host is put in front of them, so they hold none. */
  headers: readonly string[];
  body: Readable | Uint8Array | AsyncIterable<Uint8Array> | null;
  /** The protocol that the request wants to change to. */
  upgrade?: string;
}

/** Connections to where rules allow to go, kept for the next request. */
export interface Upstreams {
  /**
   * Sends a request over HTTP/1.1. What happens is told to the handler, an error as well, and by it the answer is slowed down. Nothing is tried
   * again. No answer is too late: a model may think for minutes.
   */
  dispatch(request: UpstreamRequest, handler: Dispatcher.DispatchHandler): void;
  /** A connection of its own, TLS verified, for bytes that are no HTTP. Throws an UpstreamError. */
  connectTls(destination: Destination, rule: CompiledRule, signal?: AbortSignal): Promise<TLSSocket>;
  /** A connection of its own, without TLS. Throws an UpstreamError. */
  connectTcp(destination: Destination, rule: CompiledRule, signal?: AbortSignal): Promise<Socket>;
  /** The address to which the last connection for this target was made. */
  address(target: UpstreamTarget): string | undefined;
  /** Lets go of the connections of rules that are not among these or open other addresses. Requests that run on them end first. */
  retain(rules: readonly CompiledRule[]): void;
  /** Breaks off connections at once, with the requests on them. */
  closeWhere(predicate: (target: UpstreamTarget) => boolean): void;
  /** Breaks off everything. */
  close(): Promise<void>;
}

interface Kept {
  target: UpstreamTarget;
  pool: Pool;
  /** The Host of every request on it. */
  host: string;
  address?: string;
}

const CONNECTIONS_PER_POOL_MAX = 64;
const POOLS_MAX = 128;
/** Less than servers keep theirs, so that a request seldom meets a connection that is just being closed. */
const KEEP_ALIVE_MS = 4_000;
const HEAD_BYTES_MAX = 64 * 1024;

/** `ca`: authorities in PEM that are believed beside the public ones, for a company's own or for tests. */
export function createUpstreams({ dialer, ca = [] }: { dialer: Dialer; ca?: readonly string[] }): Upstreams {
  const pools = new Map<string, Kept>();
  const establish = createEstablish({ dialer, ca });

  function poolFor(target: UpstreamTarget): Kept {
    const key = keyOf(target);
    const kept = pools.get(key) ?? createKept(target, establish);
    // Put last again: the first one is then the one that was not used for the longest time.
    pools.delete(key);
    pools.set(key, kept);
    if (pools.size > POOLS_MAX) {
      const [oldest] = [...pools]
        .filter(([other]) => other !== key)
        .sort((a, b) => Number(isBusy(a[1])) - Number(isBusy(b[1])));
      if (oldest !== undefined) letGo(...oldest);
    }
    return kept;
  }

  function letGo(key: string, { pool }: Kept): void {
    pools.delete(key);
    // Ends when its requests have ended; they have told their handlers how.
    void pool.close().catch(() => {});
  }

  function breakOff(key: string, { pool }: Kept): Promise<void> {
    pools.delete(key);
    return pool.destroy(new UpstreamError("upstream-failed", "the connection was closed by the guard"));
  }

  return {
    dispatch({ destination, protocol, rule, ...request }, handler) {
      const { pool, host } = poolFor({ destination, protocol, rule });
      pool.dispatch(
        {
          method: request.method,
          path: request.path,
          headers: ["host", host, ...request.headers],
          // undici takes any iterable of bytes, its types name only some.
          body: request.body as Readable | Uint8Array | null,
          upgrade: request.upgrade ?? null,
          headersTimeout: 0,
          bodyTimeout: 0,
        },
        handler,
      );
    },
    async connectTls(destination, rule, signal) {
      const { socket } = await establish({ destination, protocol: "HTTPS", rule }, signal);
      return socket as TLSSocket;
    },
    async connectTcp(destination, rule, signal) {
      return (await establish({ destination, protocol: "HTTP", rule }, signal)).socket;
    },
    address: (target) => pools.get(keyOf(target))?.address,
    retain(rules) {
      const known = new Set(rules.map(reachOf));
      for (const [key, kept] of pools) if (!known.has(reachOf(kept.target.rule))) letGo(key, kept);
    },
    closeWhere(predicate) {
      for (const [key, kept] of pools) if (predicate(kept.target)) void breakOff(key, kept).catch(() => {});
    },
    async close() {
      await Promise.all([...pools].map(([key, kept]) => breakOff(key, kept)));
    },
  };
}

function createKept(target: UpstreamTarget, establish: Establish): Kept {
  const origin = originOf(target);
  const pool = new Pool(origin, {
    connections: CONNECTIONS_PER_POOL_MAX,
    pipelining: 1,
    keepAliveTimeout: KEEP_ALIVE_MS,
    headersTimeout: 0,
    bodyTimeout: 0,
    maxHeaderSize: HEAD_BYTES_MAX,
    connect(_options, callback) {
      establish(target).then(
        ({ socket, address }) => {
          kept.address = address;
          callback(null, socket);
        },
        (error: unknown) => callback(failed(target.destination, error), null),
      );
    },
  });
  const kept: Kept = { target, pool, host: new URL(origin).host };
  return kept;
}

function isBusy({ pool: { stats } }: Kept): boolean {
  return stats.pending + stats.running + stats.queued > 0;
}

/** Rules of one name may differ before and after a change, so what a rule opens is part of the key. */
function keyOf({ destination, protocol, rule }: UpstreamTarget): string {
  return JSON.stringify([protocol, destination.host, destination.port, reachOf(rule)]);
}

function reachOf({ rule }: CompiledRule): string {
  return JSON.stringify([rule.name, rule.host, rule.ports, rule.protocol, rule.cidrs]);
}

function originOf({ destination, protocol }: UpstreamTarget): string {
  return `${protocol === "HTTPS" ? "https" : "http"}://${authorityOf(destination)}`;
}
