"""A receiver of Standard Webhooks by their published library. Speaks as serve.js does; 401 where the library refuses."""

import base64
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

state = {"secret": ""}
seen: dict[str, int] = {}


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def end(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_PUT(self) -> None:
        state["secret"] = self.body().decode()
        self.end(200)

    def do_POST(self) -> None:
        body = self.body()
        headers = {name.lower(): value for name, value in self.headers.items()}
        status = self.answer(headers, body)
        line = {"path": self.path, "status": status, "headers": headers, "body": base64.b64encode(body).decode()}
        print(json.dumps(line), flush=True)
        self.end(status)

    def answer(self, headers: dict[str, str], body: bytes) -> int:
        try:
            Webhook(state["secret"]).verify(body, headers)
        except WebhookVerificationError:
            return 401
        event = f"{self.path} {headers['webhook-id']}"
        seen[event] = seen.get(event, 0) + 1
        return 503 if self.path == "/flaky" and seen[event] <= 2 else 200

    def log_message(self, *_: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
