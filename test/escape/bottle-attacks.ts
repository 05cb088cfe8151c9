/** One try to get out of a bottle, made inside it by `bottle-attacker.ts`. */
export type Attack =
  /** A connection of the agent's own, past its guard. */
  | { kind: "tcp"; host: string; port: number }
  /** A datagram: a question to a name server, so that any name server would notice. */
  | { kind: "udp"; host: string; port: number; name?: string; type?: number }
  /** As programs look up names. */
  | { kind: "lookup"; name: string }
  /** CONNECT through the guard, TLS inside, a request inside that. */
  | {
      kind: "tunnel";
      authority: string;
      /** `false`: none is sent. Absent: the host of the authority. */
      serverName?: string | false;
      /** Absent: a GET to the authority. */
      request?: string;
      /** Absent: those in the environment. */
      credentials?: string;
      /** Through a program of the agent that passes on what it gets. */
      relayed?: true;
    }
  /** The same with HTTP/2 inside. */
  | { kind: "http2"; authority: string; inner: string }
  /** Bytes for the guard's proxy; `{login}` stands for the header with the credentials. */
  | { kind: "bytes"; bytes: string };

/** What became of a try, as the agent sees it. */
export interface Finding {
  /** Code of the error that the kernel or TLS answered. */
  error?: string;
  /** The agent's own connection was made, its datagram was sent, its name was found. */
  through?: boolean;
  /** Of CONNECT; 0: closed without a word. */
  connect?: number;
  /** Of the request inside, or of the only one. */
  status?: number;
  /** Of the refusal. */
  rule?: string;
  /** All that came back. */
  text?: string;
}
