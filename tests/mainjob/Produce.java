import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * An upstream system: produces what it reads with Apache Kafka's own client. Arguments: brokers, topic. A line of input is a
 * record: the value in base64, then a tab and name=value for each header. Prints how many were acknowledged.
 */
public class Produce {
  public static void main(String[] args) throws Exception {
    Properties settings = new Properties();
    settings.put("bootstrap.servers", args[0]);
    settings.put("acks", "all");
    AtomicInteger acknowledged = new AtomicInteger();
    AtomicReference<Exception> failure = new AtomicReference<>();
    try (KafkaProducer<byte[], byte[]> producer =
            new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))) {
      for (String line; (line = in.readLine()) != null; ) {
        String[] fields = line.split("\t");
        ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(args[1], Base64.getDecoder().decode(fields[0]));
        for (int i = 1; i < fields.length; i++) {
          int at = fields[i].indexOf('=');
          record.headers().add(fields[i].substring(0, at), fields[i].substring(at + 1).getBytes(StandardCharsets.UTF_8));
        }
        producer.send(record, (metadata, error) -> {
          if (error != null) {
            failure.set(error);
          } else {
            acknowledged.incrementAndGet();
          }
        });
      }
    }
    if (failure.get() != null) {
      throw failure.get();
    }
    System.out.println("acknowledged " + acknowledged.get());
  }
}
