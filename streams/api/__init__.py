"""The query endpoint: questions over the Redis read model, answered by HTTP. It needs no Kafka."""
