import { connect, type LookupFunction, type Socket } from "node:net";
import type { Address } from "../../../controller/policy/address.ts";
import { authorityOf, type Destination } from "../../../controller/policy/destination.ts";
import { decideAddress, type CompiledRule } from "../../../controller/policy/matcher.ts";
import { ResolveError, type Resolver } from "./resolve.ts";

/** Where a destination may be reached. `connect` dials these addresses and looks nothing up again. */
export type Dialled =
  | {
      ok: true;
      /** The first that is tried; the socket tells by `remoteAddress` which one answered. */
      address: Address;
      addresses: readonly Address[];
      /** Begins a connection; the socket has an error handler to be given by the caller, and no deadline of its own. */
      connect(): Socket;
    }
  | { ok: false; rule: "address-refused" | "resolve-failed"; reason: string };

export interface Dialer {
  /** Resolves the host, unless it is an address, and decides every answer by the rule: one that is refused refuses them all. */
  dial(destination: Destination, rule: CompiledRule | undefined, signal?: AbortSignal): Promise<Dialled>;
}

/** While other addresses are left, one that does not answer is given this long. */
const ATTEMPT_MS = 3_000;
const ADDRESSES_MAX = 8;
const KEEP_ALIVE_MS = 60_000;
/** For a name to be looked up, an address to answer and TLS to be agreed. Whoever connects bounds it by this. */
export const CONNECT_MS_MAX = 10_000;

/**
 * The only way out. A name that leads to a public and to a private address is an attack or a mistake, so it is refused as a whole, and there
 * is no second lookup that could answer otherwise. `hostAddresses`: those of the machine that the guard runs on.
 */
export function createDialer({
  resolver,
  hostAddresses,
}: {
  resolver: Resolver;
  hostAddresses: readonly Address[];
}): Dialer {
  return {
    async dial(destination, rule, signal) {
      const resolved = await addressesOf(resolver, destination, signal);
      if (!resolved.ok) return resolved;
      for (const address of resolved.addresses) {
        const decision = decideAddress(rule, address, hostAddresses);
        if (!decision.ok) {
          return {
            ok: false,
            rule: "address-refused",
            reason: `${authorityOf(destination)} is refused: ${decision.reason}`,
          };
        }
      }
      const addresses = resolved.addresses.slice(0, ADDRESSES_MAX);
      const [address] = addresses;
      if (address === undefined) return { ok: false, rule: "resolve-failed", reason: noAddress(destination) };
      return { ok: true, address, addresses, connect: () => connectTo(destination, addresses) };
    },
  };
}

async function addressesOf(
  resolver: Resolver,
  destination: Destination,
  signal: AbortSignal | undefined,
): Promise<{ ok: true; addresses: Address[] } | { ok: false; rule: "resolve-failed"; reason: string }> {
  if (destination.address !== undefined) return { ok: true, addresses: [destination.address] };
  try {
    return { ok: true, addresses: await resolver.resolve(destination.host, signal) };
  } catch (error) {
    if (error instanceof ResolveError) return { ok: false, rule: "resolve-failed", reason: error.message };
    throw error;
  }
}

function noAddress(destination: Destination): string {
  return `the name "${destination.host}" has no address`;
}

function connectTo({ host, port }: Destination, addresses: readonly Address[]): Socket {
  const common = { port, noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS };
  const [only, ...others] = addresses;
  if (only !== undefined && others.length === 0) return connect({ ...common, host: only.text, family: only.family });
  // Node tries them one after the other, the families in turn (RFC 8305); this lookup is the reason why it asks nobody for them.
  const lookup: LookupFunction = (_host, _options, callback) => {
    callback(
      null,
      addresses.map(({ text, family }) => ({ address: text, family })),
    );
  };
  return connect({ ...common, host, lookup, autoSelectFamily: true, autoSelectFamilyAttemptTimeout: ATTEMPT_MS });
}
