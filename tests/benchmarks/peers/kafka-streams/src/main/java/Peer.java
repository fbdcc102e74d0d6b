import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueBytesStoreSupplier;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * The newest revision of every identity, and bytes by tenant and hour, both in stores with a changelog.
 *
 * <p>Arguments: bootstrap servers, topic, application id, records to wait for, rocksdb or memory, state folder.
 * Prints a line of JSON whenever the count has moved, and ends once all records are processed.
 */
public final class Peer {
  private static final AtomicLong SEEN = new AtomicLong();

  private Peer() {}

  public static void main(String[] arguments) throws InterruptedException {
    boolean memory = arguments[4].equals("memory");
    long wanted = Long.parseLong(arguments[3]);
    Topology topology = new Topology();
    topology.addSource("events", arguments[1]);
    topology.addProcessor("fold", Fold::new, "events");
    topology.addStateStore(
        Stores.keyValueStoreBuilder(store("ledger", memory), Serdes.String(), Serdes.ByteArray()), "fold");
    topology.addStateStore(
        Stores.keyValueStoreBuilder(store("totals", memory), Serdes.String(), Serdes.Long()).withCachingEnabled(),
        "fold");

    Properties settings = new Properties();
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, arguments[2]);
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
    settings.put(StreamsConfig.STATE_DIR_CONFIG, arguments[5]);
    settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
    settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 1000);
    settings.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
    settings.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
    settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");

    KafkaStreams streams = new KafkaStreams(topology, settings);
    streams.start();
    long told = 0;
    while (told < wanted) {
      Thread.sleep(50);
      long seen = SEEN.get();
      if (seen > told) {
        told = seen;
        System.out.println("{\"at\": " + System.nanoTime() / 1e9 + ", \"records\": " + seen + "}");
      }
    }
    Runtime.getRuntime().halt(0);
  }

  private static KeyValueBytesStoreSupplier store(String name, boolean memory) {
    return memory ? Stores.inMemoryKeyValueStore(name) : Stores.persistentKeyValueStore(name);
  }

  private static final class Fold implements Processor<byte[], byte[], Void, Void> {
    private final JsonFactory json = new JsonFactory();
    private final Map<String, Long> changes = new HashMap<>();
    private KeyValueStore<String, byte[]> ledger;
    private KeyValueStore<String, Long> totals;
    private String tenant;
    private String account;

    @Override
    public void init(ProcessorContext<Void, Void> context) {
      ledger = context.getStateStore("ledger");
      totals = context.getStateStore("totals");
    }

    @Override
    public void process(Record<byte[], byte[]> event) {
      changes.clear();
      long count = 0;
      try (JsonParser parser = json.createParser(event.value())) {
        parser.nextToken();
        while (parser.nextToken() == JsonToken.FIELD_NAME) {
          String name = parser.currentName();
          parser.nextToken();
          switch (name) {
            case "tenant" -> tenant = parser.getText();
            case "account" -> account = parser.getText();
            case "records" -> {
              while (parser.nextToken() != JsonToken.END_ARRAY) {
                merge(parser);
                count++;
              }
            }
            default -> parser.skipChildren();
          }
        }
      } catch (IOException error) {
        throw new UncheckedIOException(error);
      }
      for (Map.Entry<String, Long> change : changes.entrySet()) {
        Long known = totals.get(change.getKey());
        totals.put(change.getKey(), (known == null ? 0 : known) + change.getValue());
      }
      SEEN.addAndGet(count);
    }

    private void merge(JsonParser parser) throws IOException {
      String identity = null;
      String hour = null;
      long revision = 0;
      long total = 0;
      while (parser.nextToken() == JsonToken.FIELD_NAME) {
        String name = parser.currentName();
        parser.nextToken();
        switch (name) {
          case "identity" -> identity = parser.getText();
          case "revision" -> revision = parser.getLongValue();
          case "start" -> hour = parser.getText().substring(0, 13);
          case "total" -> total = parser.getLongValue();
          default -> parser.skipChildren();
        }
      }
      String key = tenant + "|" + account + "|" + identity;
      byte[] known = ledger.get(key);
      if (known != null) {
        ByteBuffer before = ByteBuffer.wrap(known);
        if (before.getLong() >= revision) {
          return;
        }
        long replaced = before.getLong();
        byte[] place = new byte[before.remaining()];
        before.get(place);
        changes.merge(tenant + "|" + new String(place), -replaced, Long::sum);
      }
      byte[] place = hour.getBytes();
      ledger.put(key, ByteBuffer.allocate(16 + place.length).putLong(revision).putLong(total).put(place).array());
      changes.merge(tenant + "|" + hour, total, Long::sum);
    }
  }
}
