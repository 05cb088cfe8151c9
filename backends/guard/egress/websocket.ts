import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { createAuditEntry, pathOf } from "./audit-entry.ts";
import type { Dispatcher } from "undici";
import { BUDGET_SPENT, decide, type Admitted } from "./decide.ts";
import type { RequestContext } from "./egress.ts";
import { createExchange, type Exchange } from "./exchange.ts";
import { responseHeaders } from "./headers.ts";
import { refused, socketAnswer } from "./respond.ts";
import { cleaner } from "./scrub.ts";
import { splice } from "./splice.ts";
import { failure } from "./upstream-failure.ts";
import type { UpstreamTarget } from "./upstream.ts";

/**
 * A request that wants to leave HTTP. Only a WebSocket may, and only where a rule says so: the handshake is decided, scanned and given its
 * credentials as any other request; what passes afterwards is counted and bounded, not read.
 */
export function serveUpgrade(
  context: RequestContext,
  given: { request: IncomingMessage; socket: Duplex; head: Buffer; target?: string },
): void {
  const { egress, destination, protocol } = context;
  const { request, socket, target = request.url ?? "" } = given;
  const method = request.method ?? "";
  const subject = { kind: "request", protocol, host: destination.host, port: destination.port, method } as const;
  const entry = createAuditEntry(egress, { ...subject, path: pathOf(target) });
  const answer = socketAnswer(socket);
  const agent: Agent = { socket, switched: false };
  const exchange = createExchange(egress, entry, { ...answer, canSend: () => !agent.switched && answer.canSend() });
  socket.on("error", () => socket.destroy());
  socket.on("close", () => (agent.switched ? undefined : exchange.gone()));
  if (given.head.length > 0) socket.unshift(given.head);
  if (method === "CONNECT")
    return exchange.refuse(refused("method-refused", "CONNECT leads around the guard", { remedy: "ChangeRequest" }));
  const upgrade = request.headers.upgrade ?? "";
  if (upgrade.toLowerCase() !== "websocket") {
    const reason = "the only protocol that a request may change to is WebSocket";
    return exchange.refuse(refused("websocket-refused", reason, { remedy: "ChangeRequest" }));
  }
  const decision = decide({ context, exchange }, request, { target, webSocket: true });
  if (!decision.ok) return exchange.refuse(decision.refused);
  const { matched, path, headers } = decision.admitted;
  const to: UpstreamTarget = { destination, protocol, rule: matched };
  const handler = createHandshake(exchange, decision.admitted, { agent, target: to });
  try {
    egress.upstreams.dispatch({ ...to, method, path, headers, body: null, upgrade: "websocket" }, handler);
  } catch (error) {
    exchange.refuse(failure(error));
  }
}

/** The agent's side. Once its protocol is switched, no answer in HTTP may be written to it any more. */
interface Agent {
  socket: Duplex;
  switched: boolean;
}

function createHandshake(
  exchange: Exchange,
  admitted: Admitted,
  { agent, target }: { agent: Agent; target: UpstreamTarget },
): Dispatcher.DispatchHandler {
  const clean = cleaner(admitted);
  return {
    onConnect(abort) {
      if (exchange.ended()) abort();
      else exchange.onStop(abort);
    },
    onUpgrade(status, raw, upstream) {
      if (exchange.ended()) return void upstream.destroy();
      const headers = clean(responseHeaders(raw ?? []));
      const lines = headers.map((text, at) => (at % 2 === 0 ? `${text}: ` : `${text}\r\n`)).join("");
      const head = `HTTP/1.1 ${status} Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n`;
      agent.switched = true;
      agent.socket.write(`${head}${lines}\r\n`, "latin1");
      exchange.answered(status);
      exchange.entry.address = exchange.egress.upstreams.address(target);
      exchange.onStop(() => upstream.destroy());
      carry(exchange, admitted, { agent: agent.socket, upstream });
    },
    onHeaders(status) {
      if (status < 200) return true;
      const reason = `the host answered the WebSocket handshake with ${status}`;
      exchange.refuse(
        refused("upstream-failed", reason, { status: status >= 400 ? status : 502, remedy: "TellPerson" }),
      );
      return true;
    },
    onData: () => true,
    onComplete() {},
    onError: (error) => exchange.refuse(failure(error)),
  };
}

function carry(exchange: Exchange, admitted: Admitted, { agent, upstream }: { agent: Duplex; upstream: Duplex }): void {
  const { egress, entry } = exchange;
  splice({
    agent,
    upstream,
    onUp(bytes) {
      const settings = egress.settings.current() ?? admitted.settings;
      if (!egress.budget.take(settings, entry.host, bytes)) {
        exchange.refuse(refused("budget", BUDGET_SPENT));
        return false;
      }
      entry.bytesUp += bytes;
      return true;
    },
    onDown: (bytes) => void (entry.bytesDown += bytes),
    onEnd: () => exchange.complete(),
  });
}
