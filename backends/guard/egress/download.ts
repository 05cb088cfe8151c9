import type { ServerResponse } from "node:http";
import type { Http2ServerResponse } from "node:http2";
import type { Writable } from "node:stream";
import type { Dispatcher } from "undici";
import type { Admitted } from "./decide.ts";
import type { Incoming, Outgoing } from "./egress.ts";
import type { Exchange } from "./exchange.ts";
import { headerRecord, headerValues, responseHeaders, type FlatHeaders } from "./headers.ts";
import { dropBody, refused } from "./respond.ts";
import { bodyScrubber, cleaner } from "./scrub.ts";
import { failure } from "./upstream-failure.ts";
import type { UpstreamTarget } from "./upstream.ts";

/**
 * Passes an answer on as it comes: nothing is gathered, a slow client slows the upstream down, and an answer that breaks off upstream breaks off
 * for the client. Where the rule put a credential into the request, the credential is taken out of head, body and trailers.
 */
export function createDownload(
  exchange: Exchange,
  admitted: Admitted,
  { request, response, target }: { request: Incoming; response: Outgoing; target: UpstreamTarget },
): Dispatcher.DispatchHandler {
  const scrubber = bodyScrubber(admitted);
  const clean = cleaner(admitted);
  const { entry } = exchange;
  const body: Writable = response;
  let resumeUpstream: (() => void) | undefined;
  const write = (chunk: Uint8Array): boolean => {
    if (body.write(chunk)) return true;
    body.once("drain", () => resumeUpstream?.());
    return false;
  };
  return {
    onConnect(abort) {
      if (exchange.ended()) abort();
      else exchange.onStop(abort);
    },
    onHeaders(status, raw, resume, statusText) {
      if (exchange.ended()) return true;
      resumeUpstream = resume;
      entry.address = exchange.egress.upstreams.address(target);
      const headers = clean(responseHeaders(raw));
      if (status < 200) {
        sendInformation(response, status, headers);
        return true;
      }
      const encoding = headerValues(headers, "content-encoding").join(",").trim().toLowerCase();
      if (scrubber !== undefined && encoding !== "" && encoding !== "identity" && hasBody(request, status)) {
        exchange.refuse(refused("uninspectable", UNREADABLE, { status: 502, remedy: "AskForReadable" }));
        return true;
      }
      sendHead(response, { status, statusText: clean([statusText]).join(), headers });
      exchange.answered(status);
      return true;
    },
    onData(chunk) {
      if (exchange.ended()) return true;
      entry.bytesDown += chunk.length;
      if (scrubber === undefined) return write(chunk);
      let flowing = true;
      for (const part of scrubber.push(chunk)) flowing = write(part) && flowing;
      return flowing;
    },
    onComplete(trailers) {
      if (exchange.ended()) return;
      for (const part of scrubber?.end() ?? []) body.write(part);
      sendTrailers(response, clean((trailers ?? []).map(String)));
      response.end();
      exchange.complete();
      dropBody(request, response);
    },
    onError(error) {
      exchange.refuse(failure(error));
    },
  };
}

const UNREADABLE =
  "the answer is compressed, so that the credential which the guard added could not be taken out of it";

function hasBody(request: Incoming, status: number): boolean {
  return request.method !== "HEAD" && status !== 204 && status !== 304;
}

interface Head {
  status: number;
  statusText: string;
  headers: FlatHeaders;
}

function sendHead(response: Outgoing, { status, statusText, headers }: Head): void {
  if (isHttp2(response)) {
    response.writeHead(status, headerRecord(headers));
    return;
  }
  response.writeHead(status, statusText, [...headers]);
  // A head waits for the first piece of its body, to go out with it; of a stream that piece may be minutes away.
  queueMicrotask(() => response.flushHeaders());
}

/** Node can send early hints, and 100 it sends by itself. Hints without a link mean nothing. */
function sendInformation(response: Outgoing, status: number, headers: FlatHeaders): void {
  const hints = headerRecord(headers);
  if (status !== 103 || hints["link"] === undefined || response.headersSent) return;
  try {
    response.writeEarlyHints(hints);
  } catch {
    // A link that Node does not understand: a hint may be left out.
  }
}

function sendTrailers(response: Outgoing, trailers: FlatHeaders): void {
  if (trailers.length === 0) return;
  response.addTrailers(headerRecord(trailers) as Record<string, string>);
}

function isHttp2(response: ServerResponse | Http2ServerResponse): response is Http2ServerResponse {
  return "stream" in response;
}
