"""How things are told: log records, OpenTelemetry, tables and drawings."""
