"""Kafka topics to CloudEvents for a ContainerSource: configured by environment; the rest is glowplug.kafka."""
