import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/**
 * A receiver of Fynapse's webhooks, by the rules of "Validating the Webhook-Signature": hex HMAC-SHA256 over t + "." + the raw body,
 * t at most five minutes away, any one v1 will do, compared in constant time. Speaks as serve.js does; 401 where nothing matches.
 */
public final class Fynapse {
    private static volatile String secret = "";
    private static final Map<String, Integer> seen = new HashMap<>();

    public static void main(String[] args) throws IOException {
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
        server.createContext("/", Fynapse::handle);
        server.start();
        System.out.println("listening on http://127.0.0.1:" + server.getAddress().getPort());
    }

    private static void handle(HttpExchange exchange) throws IOException {
        byte[] body = exchange.getRequestBody().readAllBytes();
        int status = 200;
        if (exchange.getRequestMethod().equals("PUT")) {
            secret = new String(body, StandardCharsets.UTF_8);
        } else {
            status = answer(exchange, body);
            System.out.println(line(exchange, body, status));
        }
        exchange.sendResponseHeaders(status, -1);
        exchange.close();
    }

    private static int answer(HttpExchange exchange, byte[] body) {
        if (!verify(exchange.getRequestHeaders().getFirst("Webhook-Signature"), body)) {
            return 401;
        }
        String key = exchange.getRequestHeaders().getFirst("Idempotency-Key");
        int times = seen.merge(key, 1, Integer::sum);
        return exchange.getRequestURI().getPath().equals("/flaky") && times <= 2 ? 503 : 200;
    }

    private static boolean verify(String header, byte[] body) {
        if (header == null) {
            return false;
        }
        String timestamp = null;
        List<String> signatures = new ArrayList<>();
        for (String item : header.split(",")) {
            String[] pair = item.split("=", 2);
            if (pair.length == 2 && pair[0].equals("t")) {
                timestamp = pair[1];
            } else if (pair.length == 2 && pair[0].equals("v1")) {
                signatures.add(pair[1]);
            }
        }
        try {
            if (timestamp == null || Math.abs(Instant.now().getEpochSecond() - Long.parseLong(timestamp)) > 300) {
                return false;
            }
            Mac mac = Mac.getInstance("HmacSHA256");
            mac.init(new SecretKeySpec(secret.getBytes(StandardCharsets.UTF_8), "HmacSHA256"));
            mac.update((timestamp + ".").getBytes(StandardCharsets.UTF_8));
            byte[] wanted = mac.doFinal(body);
            boolean found = false;
            for (String signature : signatures) {
                found |= MessageDigest.isEqual(wanted, HexFormat.of().parseHex(signature));
            }
            return found;
        } catch (GeneralSecurityException | IllegalArgumentException e) {
            return false;
        }
    }

    /** JSON about a request. What stands in these headers needs no escape. */
    private static String line(HttpExchange exchange, byte[] body, int status) {
        List<String> headers = new ArrayList<>();
        exchange.getRequestHeaders().forEach((name, values) ->
                headers.add("\"" + name.toLowerCase() + "\":\"" + values.get(0) + "\""));
        return "{\"path\":\"" + exchange.getRequestURI().getPath() + "\",\"status\":" + status
                + ",\"headers\":{" + String.join(",", headers) + "},\"body\":\"" + Base64.getEncoder().encodeToString(body) + "\"}";
    }
}
