"""Checks the golden vectors once more, in Python and with openssl: each request must verify as a receiver would do it.

    python3 check.py             with Python's own HMAC
    python3 check.py --openssl   with the openssl command, ed25519 included
    python3 check.py --lines P   prints profile P as lines for the Java receiver: secret, header, time, body in base64
"""

import base64
import hashlib
import hmac
import json
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
OPENSSL = "--openssl" in sys.argv
# An ed25519 public key as SubjectPublicKeyInfo is this and its 32 bytes.
SPKI = bytes.fromhex("302a300506032b6570032100")


def mac(key: bytes, content: bytes) -> bytes:
    if not OPENSSL:
        return hmac.new(key, content, hashlib.sha256).digest()
    command = ["openssl", "dgst", "-sha256", "-mac", "HMAC", "-macopt", "hexkey:" + key.hex(), "-binary"]
    return subprocess.run(command, input=content, capture_output=True, check=True).stdout


def ed25519(public: bytes, content: bytes, signature: bytes) -> bool:
    with tempfile.TemporaryDirectory() as directory:
        paths = {name: str(pathlib.Path(directory, name)) for name in ("key", "content", "signature")}
        pathlib.Path(paths["key"]).write_bytes(SPKI + public)
        pathlib.Path(paths["content"]).write_bytes(content)
        pathlib.Path(paths["signature"]).write_bytes(signature)
        command = ["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", paths["key"], "-rawin"]
        command += ["-in", paths["content"], "-sigfile", paths["signature"]]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def number(value: float) -> str:
    """A double as ECMAScript prints it, from the digits of Python's shortest form."""
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = f"{abs(value)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    count = len(digits)
    if count <= point <= 21:
        return sign + digits + "0" * (point - count)
    if 0 < point <= 21:
        return sign + digits[:point] + "." + digits[point:]
    if -6 < point <= 0:
        return sign + "0." + "0" * -point + digits
    tail = f"e{'+' if point > 0 else '-'}{abs(point - 1)}"
    return sign + digits[0] + ("." + digits[1:] if count > 1 else "") + tail


def text(value: str) -> str:
    short = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    out = []
    for char in value:
        escape = ord(char) < 0x20 or 0xD800 <= ord(char) <= 0xDFFF
        out.append(short.get(char) or (f"\\u{ord(char):04x}" if escape else char))
    return '"' + "".join(out) + '"'


def member_order(name: str):
    if name.isascii() and name.isdigit() and str(int(name)) == name and int(name) < 2**32 - 1:
        return (0, int(name), b"")
    return (1, 0, name.encode("utf-16-be", "surrogatepass"))


def sorted_json(value) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(text(n) + ":" + sorted_json(value[n]) for n in sorted(value, key=member_order)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(sorted_json, value)) + "]"
    if isinstance(value, str):
        return text(value)
    return {True: "true", False: "false", None: "null"}[value] if value is None or isinstance(value, bool) else number(value)


def fynapse(case: dict, headers: dict, body: bytes) -> bool:
    parts = [item.partition("=")[::2] for item in headers["Webhook-Signature"].split(",")]
    moment = [value for name, value in parts if name == "t"]
    given = [value for name, value in parts if name == "v1"]
    wanted = [mac(s.encode(), moment[0].encode() + b"." + body).hex() for s in case["secrets"]]
    return len(moment) == 1 and given == wanted and headers["Idempotency-Key"] == case["deliveryId"]


def fynex(case: dict, headers: dict, body: bytes) -> bool:
    return headers["X-Fynex-Signature"] == "sha256=" + mac(case["secrets"][0].encode(), body).hex()


def flashfx(case: dict, headers: dict, body: bytes) -> bool:
    signature = base64.b64encode(mac(case["secrets"][0].encode(), body)).decode()
    return headers["flashfx-signature"] == signature and headers["flashfx-request-id"] == case["event"]["id"]


def fuse(case: dict, headers: dict, body: bytes) -> bool:
    content = sorted_json(json.loads(body, parse_int=float)).encode()
    return headers["fuse-verification"] == base64.b64encode(mac(case["secrets"][0].encode(), content)).decode()


def standard(case: dict, headers: dict, body: bytes) -> bool:
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    public = iter(case.get("publicKeys", []))
    given = headers["webhook-signature"].split(" ")
    if len(given) != len(case["secrets"]):
        return False
    for secret, item in zip(case["secrets"], given):
        label, _, signature = item.partition(",")
        raw = base64.b64decode(signature, validate=True)
        if secret.startswith("whsk_"):
            key = base64.b64decode(next(public, "whpk_" + base64.b64encode(base64.b64decode(secret[5:])[32:]).decode())[5:])
            good = label == "v1a" and (not OPENSSL or ed25519(key, content, raw))
        else:
            good = label == "v1" and raw == mac(base64.b64decode(secret.removeprefix("whsec_")), content)
        if not good:
            return False
    return True


def lines(profile: str) -> None:
    for case in json.loads((HERE / f"{profile}.json").read_text("utf-8"))["vectors"]:
        moment = case["headers"]["Webhook-Signature"].partition(",")[0][2:]
        body = base64.b64encode(case["body"].encode("utf-8")).decode()
        for secret in case["secrets"]:
            print(secret, case["headers"]["Webhook-Signature"], moment, body, sep="\t")


def main() -> int:
    if "--lines" in sys.argv:
        lines(sys.argv[-1])
        return 0
    failures = 0
    for check in (fynapse, fynex, flashfx, fuse, standard):
        for case in json.loads((HERE / f"{check.__name__}.json").read_text("utf-8"))["vectors"]:
            if not check(case, case["headers"], case["body"].encode("utf-8")):
                print(f"{check.__name__}: {case['name']}: does not verify", file=sys.stderr)
                failures += 1
    return 1 if failures else 0


sys.exit(main())
