import type { GuardConfig, GuardPolicy, GuardRule } from "../../controller/ports/guard.ts";
import { startDnsDouble, type DnsDouble, type DnsRecords } from "./dns-double.ts";
import { guardConfig, rule, startGuardProgram, type GuardProgram, type GuardProgramOptions } from "./guard-program.ts";
import { createTestAuthority, type TestAuthority } from "./test-certificates.ts";
import { startUpstream, type Upstream, type UpstreamHandler } from "./upstreams.ts";

/** A guard, a name server, and one TLS upstream that every name below `.test` of this world leads to. */
export interface World {
  guard: GuardProgram;
  upstream: Upstream;
  dns: DnsDouble;
  authority: TestAuthority;
  /** Of the upstream, by one of its names. */
  url(host: string, path: string): string;
  /** A rule for a name of the upstream, with its port. */
  rule(part: Partial<GuardRule> & { name: string; host: string }): GuardRule;
  /** Puts other settings in force. */
  configure(part: Partial<Omit<GuardConfig, "policy">> & { policy?: Partial<GuardPolicy> }): Promise<GuardConfig>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface WorldOptions {
  /** Names of the upstream; all lead to 127.0.0.1. */
  hosts: readonly string[];
  /** Tried in order before the routes of every upstream. */
  handlers?: readonly UpstreamHandler[];
  /** Further names. */
  records?: DnsRecords;
  guard?: GuardProgramOptions;
}

/** Starts the parts and leaves the guard unconfigured. */
export async function startWorld(options: WorldOptions): Promise<World> {
  const closers: (() => Promise<void>)[] = [];
  const close = async (): Promise<void> => {
    for (const closer of closers.splice(0).toReversed()) await closer();
  };
  try {
    return await makeWorld(options, { closers, close });
  } catch (error) {
    await close();
    throw error;
  }
}

async function makeWorld(
  options: WorldOptions,
  { closers, close }: { closers: (() => Promise<void>)[]; close(): Promise<void> },
): Promise<World> {
  const authority = await createTestAuthority();
  const tls = await authority.issue({ hosts: options.hosts });
  const handler: UpstreamHandler = (request, response) =>
    (options.handlers ?? []).some((one) => one(request, response));
  const upstream = await startUpstream({ tls, handler });
  closers.push(() => upstream[Symbol.asyncDispose]());
  const records = Object.fromEntries(options.hosts.map((host) => [host, ["127.0.0.1"]]));
  const dns = await startDnsDouble({ records: { ...records, ...options.records } });
  closers.push(() => dns.close());
  const guard = await startGuardProgram({
    dns: dns.address,
    upstreamCa: authority.certificate,
    ...options.guard,
  });
  closers.push(() => guard.stop());
  return {
    guard,
    upstream,
    dns,
    authority,
    url: (host, path) => `https://${host}:${upstream.port}${path}`,
    rule: (part) => rule({ ports: [upstream.port], ...part }),
    async configure(part) {
      const config = guardConfig(part);
      await guard.configure(config);
      return config;
    },
    [Symbol.asyncDispose]: close,
  };
}
