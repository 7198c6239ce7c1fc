"""What tenancy costs, measured against bare nats-py in the same run."""
