"""Where the rows of a new project may come from."""

from __future__ import annotations

import enum


class RowsFrom(enum.Enum):
    """Where the rows of a new project come from."""

    HTTP = "http"
    KAFKA = "kafka"
    MQTT = "mqtt"
    NATS = "nats"
    REDIS = "redis"
