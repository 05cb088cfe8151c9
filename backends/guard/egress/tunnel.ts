import type { Socket } from "node:net";
import { authorityOf, type Destination } from "../../../controller/policy/destination.ts";
import { decideConnect, type ConnectDecision, type Verdict } from "../../../controller/policy/matcher.ts";
import type { GuardRule } from "../../../controller/ports/guard.ts";
import type { ActiveSettings } from "../settings.ts";
import type { AuditEntry, Outcome } from "./audit-entry.ts";
import { BUDGET_SPENT, dlpReason, hostFindings, isPlaceholder, whyNotAddress } from "./decide.ts";
import type { Egress } from "./egress.ts";
import { refuse, refused, type Answer, type Refused } from "./respond.ts";
import { splice } from "./splice.ts";
import { peekClientHello } from "./tls-peek.ts";
import { failure } from "./upstream-failure.ts";

/** A CONNECT whose asker and destination are known. */
export interface Tunnel {
  egress: Egress;
  destination: Destination;
  entry: AuditEntry;
  answer: Answer;
  socket: Socket;
  /** By which it was let in: it goes when the token does. */
  token: string;
}

export const ESTABLISHED = "HTTP/1.1 200 Connection established\r\n\r\n";

type Unread = Extract<ConnectDecision, { protocol: "TLS" | "TCP" }>;

/**
 * A tunnel whose bytes pass unread, by a rule that says so. TLS: only after its server name was compared, and nothing is resolved or dialled
 * before.
 */
export async function openTunnel(tunnel: Tunnel, { protocol, verdict }: Unread): Promise<void> {
  const { egress, destination, entry, answer, socket } = tunnel;
  const { matched } = verdict;
  if (verdict.action !== "Allow" || matched === undefined) return refuseTunnel(tunnel, protocol, verdict);
  const no = inspectHost(tunnel, matched.rule);
  if (no !== undefined) return refuse(entry, answer, no);
  let first: Buffer | undefined;
  if (protocol === "TLS") {
    socket.write(ESTABLISHED);
    const peek = await peekClientHello(socket, destination);
    if (!peek.ok) return endTunnel(tunnel, refused("tls-refused", peek.reason));
    first = peek.bytes;
  }
  const gone = new AbortController();
  const abort = (): void => gone.abort();
  socket.once("close", abort);
  let upstream: Socket;
  try {
    upstream = await egress.upstreams.connectTcp(destination, matched, gone.signal);
  } catch (error) {
    if (first !== undefined || socket.destroyed) return endTunnel(tunnel, failure(error));
    return refuse(entry, answer, failure(error));
  } finally {
    socket.off("close", abort);
  }
  entry.address = upstream.remoteAddress;
  if (first === undefined) socket.write(ESTABLISHED);
  carry(tunnel, { protocol, verdict }, { upstream, first });
}

/** A name is told to a name server and to the host before any byte of the tunnel. */
function inspectHost({ egress, destination, entry }: Tunnel, rule: GuardRule): Refused | undefined {
  const settings = egress.settings.current();
  if (settings === undefined) return undefined;
  const { dlp } = settings.source;
  const findings = hostFindings(settings, rule, destination.host).filter((one) => dlp !== "Off" || isPlaceholder(one));
  entry.dlp = findings;
  const bad = findings.filter((finding) => dlp === "Block" || isPlaceholder(finding));
  return bad.length === 0 ? undefined : refused("dlp", dlpReason(bad));
}

function endTunnel({ socket, entry }: Tunnel, { verdict, rule, reason }: Refused): void {
  socket.destroy();
  entry.end({ verdict, rule, reason });
}

/** From here on bytes are counted, bounded, and cut off when the policy changes. */
function carry(
  tunnel: Tunnel,
  { protocol, verdict }: Unread,
  { upstream, first }: { upstream: Socket; first: Buffer | undefined },
): void {
  const { egress, destination, entry, socket } = tunnel;
  let outcome: Outcome = { verdict: "Allowed", rule: verdict.rule, reason: verdict.reason, status: 200 };
  const cut = (rule: string, reason: string): void => {
    outcome = { verdict: "Denied", rule, reason, status: 200 };
    socket.destroy();
    upstream.destroy();
  };
  const take = (bytes: number): boolean => {
    const settings = egress.settings.current();
    if (settings === undefined || !egress.budget.take(settings, destination.host, bytes)) {
      cut("budget", BUDGET_SPENT);
      return false;
    }
    entry.bytesUp += bytes;
    return true;
  };
  const close = egress.open.add({
    recheck(settings) {
      const no = whyNot(tunnel, settings, protocol);
      if (no !== undefined) cut("narrowed", `the policy changed: ${no}`);
    },
  });
  splice({
    agent: socket,
    upstream,
    onUp: take,
    onDown: (bytes) => void (entry.bytesDown += bytes),
    onEnd() {
      close();
      entry.end(outcome);
    },
  });
  if (first !== undefined && take(first.length)) upstream.write(first);
}

function refuseTunnel({ egress, destination, entry, answer }: Tunnel, protocol: string, verdict: Verdict): void {
  const { action, rule, reason } = verdict;
  const ticket =
    action === "RequireApproval"
      ? egress.tickets.of(`${rule} CONNECT ${protocol} ${authorityOf(destination)}`)
      : undefined;
  refuse(entry, answer, refused(rule, reason, ticket === undefined ? {} : { ticket }));
}

function whyNot({ destination, token, entry }: Tunnel, settings: ActiveSettings, protocol: string): string | undefined {
  if (settings.closed !== undefined) return settings.closed.message;
  if (settings.token !== token) return "the token of this bottle is another one now";
  const decision = decideConnect(settings.policy, destination);
  if (decision.protocol !== protocol || decision.protocol === "HTTPS") return `it is ${decision.protocol} now`;
  const { verdict } = decision;
  return verdict.action === "Allow" ? whyNotAddress(verdict.matched, entry.address) : verdict.reason;
}
