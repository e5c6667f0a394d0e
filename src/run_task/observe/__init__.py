"""What people see: log records, values as text, tables and drawings."""
