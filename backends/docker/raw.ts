import { Duplex, Readable } from "node:stream";
import type { Engine } from "./engine.ts";

/** A request whose answer is read as it comes. dockerode has no method for these, or one that collects the answer first. */
export interface RawRequest {
  /** With its query. */
  path: string;
  method: "GET" | "POST";
}

const STATUS_CODES = {
  101: true,
  200: true,
  400: "bad request",
  404: "not found",
  409: "conflict",
  500: "server error",
};

/** A POST with a JSON body whose answer dockerode throws away. */
export function postJson(engine: Engine, path: string, body: object, abortSignal: AbortSignal): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const options = { path, method: "POST", abortSignal, statusCodes: { ...STATUS_CODES, 201: true }, options: body };
    engine.docker.modem.dial(options, (error, answer) => {
      if (error === null) resolve(answer);
      else reject(error);
    });
  });
}

/** Resolves once the engine has accepted the request. */
export function openStream(engine: Engine, request: RawRequest, abortSignal: AbortSignal): Promise<Readable> {
  return new Promise((resolve, reject) => {
    engine.docker.modem.dial(dialOptions(request, abortSignal), (error, stream) => {
      if (error !== null) reject(error);
      else if (stream instanceof Readable) resolve(stream);
      else reject(new Error(`the answer to ${request.path} is no stream`));
    });
  });
}

/** Both directions on one connection. */
export function openDuplex(engine: Engine, request: RawRequest, abortSignal: AbortSignal): Promise<Duplex> {
  return new Promise((resolve, reject) => {
    // The empty body makes dockerode send the head of the request and leave its other direction open.
    const options = { ...dialOptions(request, abortSignal), hijack: true, openStdin: true, file: Buffer.alloc(0) };
    engine.docker.modem.dial(options, (error, stream) => {
      if (error !== null) reject(error);
      else if (stream instanceof Duplex) resolve(stream);
      else reject(new Error(`the answer to ${request.path} is no connection`));
    });
  });
}

function dialOptions({ path, method }: RawRequest, abortSignal: AbortSignal) {
  // dockerode cuts the last character where it has no query of its own to append.
  return { path: `${path}&`, method, isStream: true, abortSignal, statusCodes: STATUS_CODES };
}
