"""The control loops of Knative Eventing's kinds: Broker, Trigger, JobSink and PingSource."""
