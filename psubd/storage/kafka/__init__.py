"""The storage on Kafka, through kafka-python 3.

From the outside in:

- `factory` reads the URL and ``[storage.kafka]`` and builds the storage; `settings` says what may stand there;
- `backend` is the storage: Deferreds on the reactor's thread. `shelves` holds what was read, for everybody who waits near a log's end;
- `client` is the blocking side, with no reactor in it: `outbox` publishes, `reads` reads, `tail` waits for what comes, `groups` keeps the
  groups' places, `topics` makes and changes topics, `atlas` knows which there are. `threads` carries results to the reactor, in batches;
- `rd_backend` and `rd_outbox` publish through librdkafka instead (``rdkafka:``), and leave the rest as it is;
- `line` is a thread of the driver's with its connections.

The driver's connections and protocol do the work; `records` writes record batches itself, faster. Its producer, consumer and admin client are not
used:

- ``KafkaProducer`` gives up for all tenants after one refused batch, cannot say whether a record that timed out was ever sent, refuses null header
  values, and learns late of new partitions. `outbox` sends record batches, with the idempotent protocol, one batch of a
  partition at a time;
- ``KafkaConsumer`` is moved from place to place only between two fetches, and holds one place a partition. `reads` and `tail` send the driver's own
  fetch requests, and leave the records (aborted transactions, markers, CRCs, compression) to its parser;
- ``KafkaAdminClient`` remembers a group's coordinator for ever and retries nothing.
"""
