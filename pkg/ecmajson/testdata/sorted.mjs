// Reads one JSON document a line, in base64; writes what a fuse receiver signs of it and, behind a tab, what it sends back, or "!"
// where it does not parse.
// The replacer is the recipe of Fuse's documents, written anew: an object's members re-inserted in sorted order.
import { readFileSync, writeFileSync } from "node:fs";

const sorted = (_, value) => {
  if (!(value instanceof Object) || Array.isArray(value)) return value;
  const out = {};
  for (const name of Object.keys(value).sort()) out[name] = value[name];
  return out;
};

const print = (line) => {
  try {
    const value = JSON.parse(Buffer.from(line, "base64").toString("utf8"));
    return JSON.stringify(value, sorted) + "\t" + JSON.stringify(value);
  } catch {
    return "!";
  }
};

const lines = readFileSync(0, "latin1").trimEnd().split("\n");
writeFileSync(1, lines.map(print).join("\n") + "\n");
