// oxlint-disable-next-line import/no-unassigned-import -- a side effect is all it has: @peculiar/x509 throws unless it came first.
import "reflect-metadata";
import { randomBytes, webcrypto } from "node:crypto";
import { isIP } from "node:net";
import {
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  SubjectAlternativeNameExtension,
  X509CertificateGenerator,
} from "@peculiar/x509";

const EC_P256 = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const DAY_MS = 24 * 3_600_000;

/** What one server of a test shows. `expired` and `selfSigned` make certificates that a careful client refuses. */
export interface TestCertificateRequest {
  /** Names and IP addresses the certificate is for. */
  hosts: readonly string[];
  expired?: boolean;
  selfSigned?: boolean;
}

/** Key and certificate in PEM, ready for `tls.createServer`. */
export interface TestCertificate {
  key: string;
  cert: string;
}

/** A certificate authority that only this test knows. */
export interface TestAuthority {
  /** PEM, for the `ca` option of a client. */
  certificate: string;
  issue(request: TestCertificateRequest): Promise<TestCertificate>;
}

/** Makes an authority of its own for each caller, so that one test's certificates mean nothing to another. */
export async function createTestAuthority(): Promise<TestAuthority> {
  const keys = await generateKeys();
  const name = `CN=Test authority ${randomBytes(4).toString("hex")}`;
  const certificate = await X509CertificateGenerator.createSelfSigned({
    name,
    keys,
    ...validity(false),
    serialNumber: serial(),
    signingAlgorithm: EC_P256,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
    ],
  });
  return {
    certificate: certificate.toString("pem"),
    issue: (request) => issue({ name, keys }, request),
  };
}

async function issue(
  issuer: { name: string; keys: webcrypto.CryptoKeyPair },
  request: TestCertificateRequest,
): Promise<TestCertificate> {
  const keys = await generateKeys();
  const subject = "CN=Test server";
  const certificate = await X509CertificateGenerator.create({
    subject,
    issuer: request.selfSigned === true ? subject : issuer.name,
    publicKey: keys.publicKey,
    signingKey: request.selfSigned === true ? keys.privateKey : issuer.keys.privateKey,
    ...validity(request.expired === true),
    serialNumber: serial(),
    signingAlgorithm: EC_P256,
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth]),
      new SubjectAlternativeNameExtension(
        request.hosts.map((host) => ({ type: isIP(host) === 0 ? "dns" : "ip", value: host }) as const),
      ),
    ],
  });
  const pkcs8 = await webcrypto.subtle.exportKey("pkcs8", keys.privateKey);
  return { key: PemConverter.encode(pkcs8, "PRIVATE KEY"), cert: certificate.toString("pem") };
}

function generateKeys(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(EC_P256, true, ["sign", "verify"]);
}

/** The first byte is below 0x80: a serial number is a positive integer. */
function serial(): string {
  return `01${randomBytes(15).toString("hex")}`;
}

function validity(expired: boolean): { notBefore: Date; notAfter: Date } {
  const now = Date.now();
  const notAfter = expired ? now - DAY_MS : now + DAY_MS;
  return { notBefore: new Date(notAfter - 3 * DAY_MS), notAfter: new Date(notAfter) };
}
