import { createAuditEntry, pathOf, type AuditEntry } from "./audit-entry.ts";
import { bodyLength } from "./body-reader.ts";
import { decide, type Admitted } from "./decide.ts";
import { createDownload } from "./download.ts";
import { REQUESTS_MAX, type Incoming, type Outgoing, type RequestContext } from "./egress.ts";
import { createExchange, type Exchange } from "./exchange.ts";
import { refused, responseAnswer } from "./respond.ts";
import { prepareUpload, type UploadBody } from "./upload.ts";
import { failure } from "./upstream-failure.ts";
import type { UpstreamTarget } from "./upstream.ts";

/** One request to a destination that is known, from its head to the line in the audit. `target`: in another form than the request has it. */
export function serveRequest(
  context: RequestContext,
  request: Incoming,
  response: Outgoing,
  target: string = request.url ?? "",
): void {
  const { egress } = context;
  const entry = requestEntry(context, request.method ?? "", target);
  const exchange = createExchange(egress, entry, responseAnswer(request, response));
  request.on("error", () => exchange.gone());
  response.on("error", () => exchange.gone());
  response.on("close", () => exchange.gone());
  if (egress.load.requests > REQUESTS_MAX) return exchange.refuse(refused("overloaded", TOO_MANY));
  if (request.headers.expect !== undefined && !/^100-continue$/i.test(request.headers.expect)) {
    return exchange.refuse(refused("bad-request", "the only expectation is 100-continue", { status: 417 }));
  }
  const decision = decide({ context, exchange }, request, { target, webSocket: false });
  if (!decision.ok) return exchange.refuse(decision.refused);
  const { admitted } = decision;
  const send = (body: UploadBody): void => dispatch(context, exchange, { admitted, body, request, response });
  if (bodyLength(request) === undefined) return send({ content: null });
  prepareUpload(exchange, admitted, request).then(
    (body) => (body === undefined ? undefined : send(body)),
    (error: unknown) => exchange.refuse(failure(error)),
  );
}

const TOO_MANY = `this bottle has ${REQUESTS_MAX} requests in flight: wait for one of them`;

function dispatch(
  { egress, destination, protocol }: RequestContext,
  exchange: Exchange,
  given: { admitted: Admitted; body: UploadBody; request: Incoming; response: Outgoing },
): void {
  if (exchange.ended()) return;
  const { admitted, body } = given;
  const { method, path, matched } = admitted;
  const { length } = body;
  const headers = length === undefined ? admitted.headers : [...admitted.headers, "content-length", String(length)];
  const target: UpstreamTarget = { destination, protocol, rule: matched };
  const handler = createDownload(exchange, admitted, { ...given, target });
  try {
    egress.upstreams.dispatch({ ...target, method, path, headers, body: body.content }, handler);
  } catch (error) {
    exchange.refuse(failure(error));
  }
}

function requestEntry({ egress, destination, protocol }: RequestContext, method: string, target: string): AuditEntry {
  return createAuditEntry(egress, {
    kind: "request",
    protocol,
    host: destination.host,
    port: destination.port,
    method,
    path: pathOf(target),
  });
}
