"""Feature lookup: entity ids in, features from Redis, predictions out."""
