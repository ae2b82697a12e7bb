import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.Base64;
import java.util.HexFormat;
import java.util.Scanner;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/**
 * A receiver of fynapse webhooks, as their documents describe one: HMAC-SHA256 over timestamp, full stop and raw body, any v1 may
 * match, constant-time comparison, five minutes of tolerance. Reads lines of secret, header, current time and body in base64,
 * separated by tabs, and ends with 1 where one of them does not verify, or where a changed body does.
 */
public final class FynapseReceiver {
    static final long TOLERANCE_SECONDS = 300;

    static boolean verify(String header, byte[] body, String secret, long now) throws Exception {
        String timestamp = null;
        for (String item : header.split(",")) {
            if (item.startsWith("t=")) {
                if (timestamp != null) {
                    return false;
                }
                timestamp = item.substring(2);
            }
        }
        if (timestamp == null || Math.abs(now - Long.parseLong(timestamp)) > TOLERANCE_SECONDS) {
            return false;
        }
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(secret.getBytes(StandardCharsets.UTF_8), "HmacSHA256"));
        mac.update((timestamp + ".").getBytes(StandardCharsets.UTF_8));
        byte[] expected = mac.doFinal(body);
        for (String item : header.split(",")) {
            if (item.startsWith("v1=") && item.length() == 67 && MessageDigest.isEqual(expected, HexFormat.of().parseHex(item.substring(3)))) {
                return true;
            }
        }
        return false;
    }

    public static void main(String[] arguments) throws Exception {
        int checked = 0;
        try (Scanner lines = new Scanner(System.in, StandardCharsets.UTF_8)) {
            while (lines.hasNextLine()) {
                String[] fields = lines.nextLine().split("\t");
                byte[] body = Base64.getDecoder().decode(fields[3]);
                long now = Long.parseLong(fields[2]) + 60;
                boolean good = verify(fields[1], body, fields[0], now);
                body[body.length - 1] ^= 1;
                if (!good || verify(fields[1], body, fields[0], now)) {
                    System.err.println("line " + (checked + 1) + " does not verify as it should");
                    System.exit(1);
                }
                checked++;
            }
        }
        if (checked == 0) {
            System.err.println("there was nothing to verify");
            System.exit(1);
        }
        System.out.println(checked + " verified");
    }
}
