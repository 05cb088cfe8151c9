import * as fc from "fast-check";
import { isIPv4, isIPv6 } from "node:net";
import { describe, expect, it } from "vitest";
import { cidrContains, classOf, parseAddress, parseCidr, type Address } from "../../controller/policy/address.ts";

const anyAddress = fc.oneof(fc.ipV4(), fc.ipV6());

describe("parseAddress", () => {
  it.each([
    ["203.0.113.5", "203.0.113.5"],
    ["0.0.0.0", "0.0.0.0"],
    ["::", "::"],
    ["::1", "::1"],
    ["2001:DB8:0:0:0:0:0:1", "2001:db8::1"],
    ["2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"],
    ["2001:0:0:1:0:0:0:1", "2001:0:0:1::1"],
    ["::ffff:1.2.3.4", "::ffff:102:304"],
    ["1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:6:102:304"],
    ["1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"],
  ])("writes %s as %s", (text, canonical) => {
    expect(parseAddress(text)?.text).toBe(canonical);
  });

  it.each([
    "",
    "1.2.3",
    "1.2.3.4.5",
    "1.2.3.256",
    "01.2.3.4",
    "1.2.3.0x4",
    "2130706433",
    " 1.2.3.4",
    "1.2.3.4 ",
    "+1.2.3.4",
    "1..2.3",
    ":",
    ":::",
    "1::2::3",
    "1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:8:9",
    "1::2:3:4:5:6:7:8",
    ":1:2:3:4:5:6:7",
    "12345::",
    "::1%eth0",
    "[::1]",
    "::1.2.3",
    "::1.2.3.4:5",
    "1.2.3.4::",
    "::01.2.3.4",
    "::g",
  ])("refuses %j", (text) => {
    expect(parseAddress(text)).toBeUndefined();
  });

  it("agrees with Node about what an address is", () => {
    const nearly = fc.string({ unit: fc.constantFrom(..."0123456789abcf:.".split("")), maxLength: 20 });

    fc.assert(
      fc.property(fc.oneof(anyAddress, nearly), (text) => {
        expect(parseAddress(text)?.family).toBe(isIPv4(text) ? 4 : isIPv6(text) ? 6 : undefined);
      }),
    );
  });

  it("spells an address as a URL does, and reads its own spelling back", () => {
    fc.assert(
      fc.property(anyAddress, (text) => {
        const address = parseAddress(text);
        const host = new URL(`http://${text.includes(":") ? `[${text}]` : text}/`).hostname;

        expect(address?.text).toBe(host.replaceAll(/[[\]]/g, ""));
        expect(parseAddress(address?.text ?? "")).toEqual(address);
      }),
    );
  });
});

describe("classOf", () => {
  it.each([
    ["8.8.8.8", "Public"],
    ["168.63.129.15", "Public"],
    ["172.32.0.1", "Public"],
    ["100.128.0.1", "Public"],
    ["2606:4700::1111", "Public"],
    ["64:ff9b::8.8.8.8", "Public"],
    ["127.8.8.8", "Loopback"],
    ["::1", "Loopback"],
    ["10.0.0.5", "Private"],
    ["172.16.0.1", "Private"],
    ["172.31.255.255", "Private"],
    ["192.168.1.1", "Private"],
    ["100.64.0.1", "Private"],
    ["fd00::1", "Private"],
    ["fec0::1", "Private"],
    ["169.254.1.1", "LinkLocal"],
    ["fe80::1", "LinkLocal"],
    ["febf::1", "LinkLocal"],
    ["169.254.169.254", "Metadata"],
    ["169.254.170.2", "Metadata"],
    ["100.100.100.200", "Metadata"],
    ["168.63.129.16", "Metadata"],
    ["192.0.0.192", "Metadata"],
    ["fd00:ec2::254", "Metadata"],
    ["fd20:ce::254", "Metadata"],
    ["224.0.0.1", "Multicast"],
    ["239.255.255.255", "Multicast"],
    ["ff02::1", "Multicast"],
    ["0.0.0.0", "Reserved"],
    ["0.1.2.3", "Reserved"],
    ["192.0.0.1", "Reserved"],
    ["192.0.2.1", "Reserved"],
    ["192.31.196.1", "Reserved"],
    ["192.52.193.1", "Reserved"],
    ["192.88.99.1", "Reserved"],
    ["192.175.48.1", "Reserved"],
    ["198.18.0.1", "Reserved"],
    ["198.19.255.255", "Reserved"],
    ["198.51.100.1", "Reserved"],
    ["203.0.113.1", "Reserved"],
    ["240.0.0.1", "Reserved"],
    ["255.255.255.255", "Reserved"],
    ["::", "Reserved"],
    ["100::1", "Reserved"],
    ["2001:2::1", "Reserved"],
    ["2001:20::1", "Reserved"],
    ["2001:db8::1", "Reserved"],
    ["2620:4f:8000::1", "Reserved"],
    ["3fff::1", "Reserved"],
    ["4000::1", "Reserved"],
    ["5f00::1", "Reserved"],
  ])("calls %s %s", (text, kind) => {
    expect(classOf(known(text))).toBe(kind);
  });

  it.each([
    ["mapped", "::ffff:169.254.169.254", "Metadata"],
    ["mapped, public inside", "::ffff:8.8.8.8", "Reserved"],
    ["mapped, private inside", "::ffff:10.0.0.1", "Private"],
    ["compatible", "::127.0.0.1", "Loopback"],
    ["translated", "::ffff:0:127.0.0.1", "Loopback"],
    ["NAT64", "64:ff9b::10.0.0.1", "Private"],
    ["NAT64", "64:ff9b::169.254.169.254", "Metadata"],
    ["local NAT64, public inside", "64:ff9b:1::8.8.8.8", "Private"],
    ["local NAT64", "64:ff9b:1::127.0.0.1", "Loopback"],
    ["local NAT64 with a prefix of 48 bits", "64:ff9b:1:7f00:0:100::", "Loopback"],
    ["6to4", "2002:a9fe:a9fe::1", "Metadata"],
    ["6to4, public inside", "2002:808:808::1", "Reserved"],
    ["Teredo, server", "2001:0:7f00:1::", "Loopback"],
    ["Teredo, client", "2001:0:808:808:0:0:80ff:fffe", "Loopback"],
  ])("looks at the IPv4 address inside: %s %s is %s", (_, text, kind) => {
    expect(classOf(known(text))).toBe(kind);
  });

  it("is never Public for an IPv6 address that leads to an IPv4 one that is not", () => {
    const prefixes = ["::ffff:", "::", "64:ff9b::", "::ffff:0:", "64:ff9b:1::"];

    fc.assert(
      fc.property(fc.ipV4(), fc.constantFrom(...prefixes), (inner, prefix) => {
        const inside = classOf(known(inner));
        const outside = classOf(known(`${prefix}${inner}`));

        expect(inside !== "Public" && outside === "Public").toBe(false);
        expect(inside === "Metadata" && outside !== "Metadata").toBe(false);
      }),
    );
  });
});

describe("a CIDR", () => {
  it.each([
    "10.0.0.0/33",
    "10.0.0.0/",
    "10.0.0.0",
    "10.0.0.0/08",
    "10.0.0.0/8/8",
    "10.0.0.5/8",
    "::1/0",
    "fd00::/129",
    "x/8",
  ])("is not read from %s", (text) => {
    expect(parseCidr(text)).toBeUndefined();
  });

  it.each([
    ["10.0.0.0/8", "10.255.0.1", true],
    ["10.0.0.0/8", "11.0.0.1", false],
    ["10.0.0.4/30", "10.0.0.7", true],
    ["10.0.0.4/30", "10.0.0.8", false],
    ["127.0.0.1/32", "127.0.0.1", true],
    ["127.0.0.1/32", "127.0.0.2", false],
    ["0.0.0.0/0", "8.8.8.8", true],
    ["0.0.0.0/0", "::ffff:8.8.8.8", false],
    ["fd00::/8", "fd12::1", true],
    ["fd00::/8", "fe00::1", false],
    ["::/0", "::1", true],
  ])("%s and %s: %s", (cidr, address, contains) => {
    const network = parseCidr(cidr);

    expect(network && cidrContains(network, known(address))).toBe(contains);
  });
});

function known(text: string): Address {
  const address = parseAddress(text);
  if (address === undefined) throw new Error(`not an address: ${text}`);
  return address;
}
